"""Names of sources: as text that every format can hold, and as digests of which millions fit into memory."""

import hashlib
from urllib.parse import unquote_to_bytes

_ESCAPED = "bytes:"
"""Begins the text of names that are not UTF-8, and of those that begin with it themselves."""


def to_text(name: str) -> str:
    """A name as valid Unicode, of a file's name that is not UTF-8 like `bytes:caf%E9.jpg`. `from_text` reverses it."""
    if is_text(name) and not name.startswith(_ESCAPED):
        return name
    return _ESCAPED + "".join(map(_quoted, name))


def from_text(text: str) -> str:
    """The name that `to_text` made this of."""
    if not text.startswith(_ESCAPED):
        return text
    return unquote_to_bytes(text[len(_ESCAPED) :]).decode("utf-8", "surrogateescape")


def digest(name: str) -> bytes:
    """16 bytes that no other name has."""
    return digest_of_text(to_text(name))


def digest_of_text(text: str) -> bytes:
    """`digest` of the name that `to_text` made this of."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


def is_text(name: str) -> bool:
    """Whether a string is valid Unicode, and not what Python makes of bytes that are no UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _quoted(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte of a file's name
        return f"%{code - 0xDC00:02X}"
    if char == "%" or 0xD800 <= code <= 0xDFFF:
        return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
    return char
