"""Locks by which writers see each other. They end with their process, however it ends."""

from contextlib import suppress

try:
    import fcntl
except ImportError:  # not on POSIX: then writers do not see each other
    fcntl = None  # type: ignore[assignment]


def lock(descriptor: int, *, wait: bool, shared: bool = False) -> bool | None:
    """Whether the lock of an open file was taken; None where there are none. It ends with `unlock`.

    Args:
        descriptor: of the file; another one of the same file is another holder, in this process too.
        wait: for those who hold it.
        shared: with others who share it; the lock that is held already becomes this one.
    """
    if fcntl is None:
        return None
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def unlock(descriptor: int) -> None:
    """End a lock, which a process that was forked meanwhile would keep where the descriptor is only closed."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
