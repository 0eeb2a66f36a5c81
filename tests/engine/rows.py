"""Predictions, and what is read back of them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mobilevit_fast.engine.predictions import Prediction
from mobilevit_fast.engine.results import ResultsFolder, read_results

FORMATS = ["parquet", "jsonl", "csv"]


def prediction(name: str, salt: int = 0, *, failed: bool = False) -> Prediction:
    """That of a source, of which no two are the same."""
    if failed:
        return Prediction(name, error=f"no image in {name}")
    first = (len(name) * 7 + sum(map(ord, name)) + salt) % 1000
    return Prediction(name, (f"class {first}", "other"), (first, 1001), (first / 1024, 0.0))


def row(name: str, salt: int = 0, *, failed: bool = False) -> dict[str, Any]:
    """What is read back of it."""
    one = prediction(name, salt, failed=failed)
    label, score = list(one.labels) or None, list(one.scores) or None
    return {"source": name, "error": one.error, "label": label, "score": score}


def opened(folder: Path, **options: Any) -> ResultsFolder:
    defaults: dict[str, Any] = {"fingerprint": {"weights": "a"}, "part_rows": 3, "top_k": 2}
    return ResultsFolder(folder, **(defaults | options))


def run(folder: Path, names: Iterable[str], salt: int = 0, failing: Iterable[str] = (), **options: Any) -> list[str]:
    """Answer what is not done, to the end; the names of that."""
    answered, wrong = [], set(failing)
    with opened(folder, **options) as results:
        for name in names:
            if not results.is_done(name):
                answered.append(name)
                results.add(prediction(name, salt, failed=name in wrong))
        results.finish({"images": len(answered)})
    return answered


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Every row by its source, of which none may have two."""
    found: dict[str, dict[str, Any]] = {}
    for one in read_results(folder):
        assert one["source"] not in found
        found[one["source"]] = one
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file that is not a lock, by its path within the folder."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith((".lock", ".own")))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def assert_same_row(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, np.ndarray):
            assert found[key].dtype == value.dtype
            np.testing.assert_array_equal(found[key], value)
        else:
            assert found[key] == value
