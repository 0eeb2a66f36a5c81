"""A folder of results that is written part by part, by runs that may be killed at any moment."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from mobilevit_fast.engine.names import digest_of_text, to_text
from mobilevit_fast.engine.predictions import Prediction
from mobilevit_fast.engine.results.formats import damage_named, format_of
from mobilevit_fast.engine.results.holding import Holding, holding, opening, taken
from mobilevit_fast.engine.results.manifest import (
    MANIFEST,
    MASKS,
    Manifest,
    clear,
    is_ours,
    manifest_of,
    read_manifest,
    stats_content,
)
from mobilevit_fast.engine.results.parts import Part, Shard, parts_in
from mobilevit_fast.engine.results.rows import MASK, Row, checked_outputs, row_of, size_of
from mobilevit_fast.files import remove_leftovers, sync_folder, user_path, write_atomically

_URL = re.compile(r"[a-z][a-z0-9+.-]+:/")
"""Begin of one, of whose slashes a `Path` leaves one."""
_MAX_PART_BYTES = 1 << 26
"""Memory of the rows in hand; beyond it a part is written, however few rows it has."""


def checked_folder(path: str | os.PathLike[str]) -> Path:
    """The path of a folder for results.

    Raises:
        ValueError: it is empty or a URL.
    """
    text = os.fspath(path)
    if not text or _URL.match(text):
        raise ValueError(f"expected a folder of this machine for results, got {text!r}")
    return user_path(path)


class ResultsFolder:
    """Answers in numbered parts, each of which is whole or not there.

    A run that is killed loses the part in hand. The next run with the same folder goes on: `is_done` says which sources
    have a row already. A manifest says what the answers depend on, so that results of different models, say, never
    lie in one folder. Several shards may write into one folder at a time, if all of them are of the same number of
    shards; of anything else a folder has one writer at a time, where the file system has locks.

    Used as a context, by one thread at a time. At its end, after an error too, the part in hand is written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        format: str = "parquet",
        fingerprint: Mapping[str, Any],
        outputs: Sequence[str] = ("label", "score"),
        top_k: int = 1,
        part_rows: int = 10_000,
        shard: tuple[int, int] | None = None,
        resume: bool = True,
        overwrite: bool = False,
        retry_failed: bool = False,
    ) -> None:
        """Nothing is read or written before the context is entered.

        Args:
            path: of the folder, which is made if there is none.
            format: `parquet`, `jsonl` or `csv`.
            fingerprint: whatever the answers depend on, by names that the user knows.
            outputs: columns beside `source` and `error`: some of label, index, score, embedding, logits, mask.
            top_k: columns of each of label, index and score in CSV, one a class.
            part_rows: rows of a part; the parts are smaller where rows are large.
            shard: (index, count): names the parts, so that others can write theirs.
            resume: go on with what is there; otherwise a folder with results is refused.
            overwrite: begin anew. Of several shards the first one to come with another fingerprint does that for all;
                with the same one, each does it for its own parts.
            retry_failed: sources of rows with an error are not done; such a row goes when its source is added again.

        Raises:
            ValueError: arguments that make no sense.
            ImportError: the format needs a package that is missing.
        """
        index, count = shard or (0, 1)
        if not 0 <= index < count:
            raise ValueError(f"expected a shard (index, count) with 0 <= index < count, got {shard}")
        if part_rows < 1 or top_k < 1:
            raise ValueError(f"expected part_rows and top_k of at least 1, got {part_rows} and {top_k}")
        self.path = checked_folder(path)
        self._outputs = checked_outputs(outputs)
        self._format = format_of(format, self._outputs, top_k)
        self._manifest = manifest_of(fingerprint, format, self._outputs, top_k)
        self._shard = Shard(index, count)
        self._stats = self.path / f"_stats{self._shard.infix}.json"
        self._part_rows, self._bytes = part_rows, 0
        self._resume, self._overwrite, self._retry_failed = resume, overwrite, retry_failed
        self._done: set[bytes] = set()
        self._failed: set[bytes] = set()
        self._again: dict[bytes, Part] = {}
        """Parts with the failed rows of sources that are not done."""
        self._in_hand: tuple[int, list[Row]] = (0, [])
        """Number of the next part, and its rows: changed in one step, so that a part which was interrupted when it had
        taken its place is written there once more, and not beside it."""
        self._stack = ExitStack()
        self._is_broken = False

    def __enter__(self) -> "ResultsFolder":
        """Open the folder.

        Raises:
            ValueError: it holds results of something else, or files that are not this package's.
            RuntimeError: somebody else writes to it.
            OSError: it cannot be made, read or written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"{self.path}: expected a folder for results, got a file")
        self._check_what_is_there()
        self.path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack, opening(self.path):
            held = stack.enter_context(holding(self.path, self._shard))
            self._begin(held)
            if self._overwrite:
                self._stats.unlink(missing_ok=True)
            self._done, self._failed, self._again = set(), set(), {}
            numbers = [-1]
            for part in self._parts():
                numbers += [part.number] if part.shard == self._shard else []
                retries = self._retry_failed and self._may_rewrite(part)
                for source, failed in self._outcomes(part):
                    digest = digest_of_text(source)
                    if failed and retries:
                        self._again[digest] = part
                        continue
                    self._done.add(digest)
                    if failed:
                        self._failed.add(digest)
            self._in_hand, self._bytes, self._is_broken = (max(numbers) + 1, []), 0, False
            if self._shard.count > 1:
                held.share()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is None or not isinstance(error, Exception):  # an interrupt is no reason why it cannot be written
                self.flush()
            elif not self._is_broken:
                with suppress(Exception):  # the error that there is says more
                    self.flush()

    def __len__(self) -> int:
        """How many sources have a row, in the parts or in hand."""
        return len(self._done | self._again.keys())

    def is_done(self, source: str) -> bool:
        """Whether a source has a row that stays."""
        return digest_of_text(to_text(source)) in self._done

    def has_failed(self, source: str) -> bool:
        """Whether a source has a row with an error, of an earlier run."""
        return digest_of_text(to_text(source)) in self._failed

    def add(self, prediction: Prediction) -> None:
        """Take a row, and write a part if it is full.

        Raises:
            ValueError: the source has a row already; class ids of a mask that are too large.
            OSError: the part cannot be written. It stays in hand, and nothing else is lost.
        """
        row = row_of(prediction, self._outputs)
        key = digest_of_text(row["source"])
        if key in self._done:
            raise ValueError(f"expected each source once, got {row['source']} again")
        _, rows = self._in_hand
        if not rows:
            self._stats.unlink(missing_ok=True)  # those of an earlier run, until this one has come to its end, too
        rows.append(row)
        self._done.add(key)
        self._bytes += size_of(row)
        if len(rows) >= self._part_rows or self._bytes >= _MAX_PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the rows in hand, as a part however few they are.

        Raises:
            OSError: it cannot be written.
        """
        number, rows = self._in_hand
        path = self.path / Part(self._shard, number, self._manifest.format).name
        if rows:
            try:
                content = self._format.encode(rows if self._format.holds_masks else self._with_files(rows))
                self._drop_failed(rows)
                write_atomically(path, content)
            except Exception:
                self._is_broken = True
                raise
        self._in_hand, self._bytes = (number + bool(rows), []), 0

    def finish(self, stats: Mapping[str, Any], *, did_nothing: bool = False) -> None:
        """Write what is in hand, and then the statistics, which say that the run came to its end.

        Args:
            stats: of the run.
            did_nothing: everything was answered already: the statistics of the run that did it stay.

        Raises:
            OSError: they cannot be written.
        """
        self.flush()
        if not (did_nothing and self._stats.exists()):
            write_atomically(self._stats, stats_content(stats))

    def _check_what_is_there(self) -> None:
        """Refuse what must not be written to, before anything is."""
        if not self.path.is_dir():
            return
        foreign = sorted(filter(is_ours, os.listdir(self.path)))
        manifest = read_manifest(self.path)  # later than the names: another shard writes it before all else
        if manifest is None:
            if foreign:
                raise ValueError(f"{self.path}: expected results with a {MANIFEST}, found {foreign[0]} without one")
        elif not self._overwrite:
            self._check_same(manifest)
            if not self._resume and not manifest.clearing and parts_in(self.path, [manifest.format]):
                raise ValueError(f"{self.path}: expected no results there, found some; resume, overwrite or move them")

    def _check_same(self, manifest: Manifest) -> None:
        different = manifest.differences(self._manifest)
        if different:
            raise ValueError(
                f"{self.path}: expected results of the same run, found those with other {', '.join(different)}; "
                "overwrite them (--overwrite) or write to another folder"
            )

    def _begin(self, held: Holding) -> None:
        """Have the folder hold what this run goes on with."""
        remove_leftovers(self.path, is_ours)
        manifest = read_manifest(self.path)
        if manifest is not None and not self._overwrite:
            self._check_same(manifest)  # another shard may have written it by now
        if manifest is None:
            self._manifest.write(self.path)
        elif manifest.differences(self._manifest) or (self._overwrite and self._shard.count == 1) or manifest.clearing:
            if not held.alone:
                raise taken(self.path)
            old = manifest.clearing or (manifest.format,)
            # From here on the old parts count no more, whenever this is killed.
            replace(self._manifest, clearing=old).write(self.path)
            clear(self.path, old)
            self._manifest.write(self.path)
        elif self._overwrite:
            self._clear_own()

    def _clear_own(self) -> None:
        """Remove this shard's parts, and leave those of its siblings."""
        parts = self._parts()
        others = [part for part in parts if part.shard.count != self._shard.count]
        if others:
            raise ValueError(
                f"{self.path}: expected parts of {self._shard.count} shards to overwrite one of them, "
                f"found {others[0].name}"
            )
        for part in parts:
            if part.shard == self._shard:
                os.unlink(self.path / part.name)

    def _parts(self) -> list[Part]:
        return parts_in(self.path, [self._manifest.format])

    def _may_rewrite(self, part: Part) -> bool:
        """Whether no sibling may be counting on a part: it is this shard's, or of another number of shards."""
        return part.shard == self._shard or part.shard.count != self._shard.count

    def _outcomes(self, part: Part) -> Iterator[tuple[str, bool]]:
        path = self.path / part.name
        with suppress(FileNotFoundError), damage_named(path):  # a sibling took the last of its rows away
            yield from self._format.outcomes(path)

    def _drop_failed(self, rows: Sequence[Row]) -> None:
        """Take away the failed rows of the sources that these rows answer again.

        That comes just before the part with these rows: a kill in between loses them as it does the part in hand, and
        no source ever has two.
        """
        keys: dict[Part, set[bytes]] = {}
        for row in rows if self._again else ():
            digest = digest_of_text(row["source"])
            if digest in self._again:
                keys.setdefault(self._again[digest], set()).add(digest)
        if not keys:
            return
        with opening(self.path):  # siblings rewrite parts of runs with another number of shards, too
            for part, dropped in keys.items():
                self._rewrite_without(part, dropped)

    def _rewrite_without(self, part: Part, dropped: set[bytes]) -> None:
        """Replace a part by one without the failed rows of some sources, in one step."""
        path = self.path / part.name
        if not path.exists():  # a sibling took the last of its rows away
            return
        kept = [
            row
            for row in self._format.rows(path)
            if row["error"] is None or digest_of_text(row["source"]) not in dropped
        ]
        if kept:
            write_atomically(path, self._format.encode(kept))
        else:
            path.unlink()

    def _with_files(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Rows that have the paths of their masks, which are on the disk then."""
        if MASK not in self._outputs or all(row[MASK] is None for row in rows):
            return rows
        folder = self.path / MASKS
        folder.mkdir(exist_ok=True)
        changed, written = [], []
        for row in rows:
            if row[MASK] is not None:
                name = f"{digest_of_text(row['source']).hex()}.png"
                (folder / name).write_bytes(row[MASK])
                written.append(folder / name)
                row = row | {MASK: f"{MASKS}/{name}"}
            changed.append(row)
        for path in written:  # after all of them are written, when one call takes most of them to the disk
            _sync(path)
        sync_folder(folder)
        return changed


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
