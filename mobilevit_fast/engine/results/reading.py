"""Results read back."""

import os
from collections.abc import Iterator
from typing import Any

from mobilevit_fast.engine.names import from_text
from mobilevit_fast.engine.results.formats import damage_named, format_of
from mobilevit_fast.engine.results.manifest import MANIFEST, read_manifest
from mobilevit_fast.engine.results.parts import parts_in
from mobilevit_fast.files import user_path


def read_results(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Every row of the finished parts of a folder, part by part.

    A row has `source`, `error`, and what was asked for: `label`, `index` and `score` are lists, `embedding` and
    `logits` float32 arrays, `mask` is the content of a PNG from Parquet, else the path of one within the folder. None
    stands where there is nothing.

    Raises:
        FileNotFoundError: there are no results.
        ValueError: what is there are no results of this package, or a part of them is damaged.
        ImportError: pyarrow is missing.
    """
    folder = user_path(path)
    manifest = read_manifest(folder)
    if manifest is None:
        raise FileNotFoundError(f"{folder}: expected a folder of results, found no {MANIFEST} there")
    if manifest.clearing:  # a run that begins anew was killed before the old parts were gone
        return
    form = format_of(manifest.format, manifest.outputs, manifest.top_k)
    for part in parts_in(folder, [manifest.format]):
        with damage_named(folder / part.name):
            for row in form.rows(folder / part.name):
                yield row | {"source": from_text(row["source"])}
