"""The stage of the engine in a GPU's session, and its table; a device of the host's stands in for the GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.gpu import engine, report, steps, table, worker
from benchmarks.gpu.results import Results
from mobilevit_fast.engine import Engine
from mobilevit_fast.engine.devices import CudaDevice
from tests.benchmarks.test_gpu_measuring import Host
from tests.engine.made_up_gpu import Captures, MadeUpStreams
from tests.engine.pictures import encoded, picture, written

SIZE = 64
TASK = engine.Task("XXS", "exact", tuple(engine.CASES), 10, "float32")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few images, and a GPU that is made up below the engine."""

    def engine_of(task: engine.Task, gpu: Any, image_size: int) -> Engine:
        made = original(task, gpu, image_size)
        made.batch_sizes = (1, 4)
        sizes = made.batch_sizes
        streams: Any = MadeUpStreams()
        made._device = CudaDevice(made.model, made.preprocessing, sizes, "auto", streams, Captures())
        return made

    original = engine.engine_of
    monkeypatch.setattr(engine, "engine_of", engine_of)
    monkeypatch.setattr(engine, "IMAGES", 8)
    monkeypatch.setattr(engine, "MADE", 4)
    monkeypatch.setattr(engine, "_LONGEST", 0.01)


def test_every_case_has_a_row_with_the_rates_of_its_stages(results: Results) -> None:
    engine.measure(TASK, results, Host(), 60.0, image_size=SIZE)
    assert [row["case"] for row in results.rows] == [*engine.CASES]
    assert [*engine.missing(TASK, results.rows)] == []
    for row in results.rows:
        assert row["reason"] is None, row
        assert row["photos"] == "made"
        assert row["images_s"] > 0
        assert row["share_of_graph"] == pytest.approx(row["images_s"] / row["graph_images_s"], rel=1e-2)
        assert ("alone" in row) == (row["case"] != "batch")
        if "alone" in row:
            assert set(row["alone"]) == {"read", "decode", "resize", "copy", "forward"}
            assert row["bound_by"] in row["alone"]
    engine.measure(TASK, results, Host(), 60.0, image_size=SIZE)
    assert len(results.rows) == len(engine.CASES)


def test_photos_that_are_given_are_measured(results: Results, tmp_path: Path) -> None:
    written(tmp_path, {"a.jpg": encoded(picture(80, 90)), "b.png": encoded(picture(70, 70), "PNG")})
    task = TASK._replace(cases=("photos",), preprocessing="fast")
    engine.measure(task, results, Host(), 60.0, photos=tmp_path, image_size=SIZE)
    (row,) = results.rows
    assert (row["images"], row["photos"], row["preprocessing"], row["reason"]) == (2, "given", "fast", None)


def test_other_loops_answer_the_same_files_in_turns(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr("torch.compile", lambda module: compiled.append(module) or module)  # which takes a minute
    monkeypatch.setattr(engine, "_BATCH_OF_LOOPS", 3)  # the last one is filled
    monkeypatch.setattr(engine, "_IMAGES_OF_LOOPS", 8)
    monkeypatch.setattr(engine, "_ROUNDS", 2)
    task = TASK._replace(cases=("jpeg256",), kind=engine.LOOPS)
    engine.measure(task, results, Host(), 60.0, image_size=SIZE)
    (found,) = results.rows
    assert found["reason"] is None, found
    assert (found["kind"], found["case"], found["images"]) == ("loops", "jpeg256", 8)
    assert [*found["images_per_second"]] == ["engine, exact", "pipeline", "dataloader-compile"]
    assert all(len(taken) == 2 for taken in found["seconds"].values())
    assert len(compiled) == 1
    assert not hasattr(compiled[0], "_mvf_request")  # the peers' model is as it was
    assert [*engine.missing(task, results.rows)] == []


def test_what_goes_wrong_is_the_reason_of_its_row(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine, "measure_stages", fails)
    engine.measure(TASK._replace(cases=("batch", "arrays")), results, Host(), 60.0, image_size=SIZE)
    assert [row["reason"] for row in results.rows] == [None, "RuntimeError: out of memory"]
    engine.measure(TASK._replace(cases=("photos",)), results, Host(), -1.0, image_size=SIZE)
    assert results.rows[-1]["reason"] == "TimeoutError: no time was left for it"


def test_a_worker_is_told_of_the_photos(results: Results, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(engine, "measure", lambda *arguments, **options: calls.append(options))
    monkeypatch.setattr(worker, "Gpu", Host)
    for photos in (None, tmp_path):
        for step in steps.steps("engine", "90", tmp_path, tmp_path, photos=photos):
            assert worker.main([*step.command[3:], "0"]) == 0
    count = len(engine.tasks())
    assert calls == [{}] * count + [{"photos": tmp_path}] * count


def test_a_folder_of_photos_that_is_none_is_refused(tmp_path: Path) -> None:
    words = ["session", "--out", str(tmp_path), "--photos", str(tmp_path / "none"), "--dry-run"]
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 2
    assert "--photos: expected a folder" in outcome.output


def test_made_photos_are_jpeg_of_several_sizes(tmp_path: Path) -> None:
    files = engine.made_photos(tmp_path)
    sizes = {np.asarray(picture_of(file)).shape for file in files}
    assert len(sizes) == len(files) == 4


def picture_of(file: Path) -> Any:
    from PIL import Image

    return Image.open(file)


def row(case: str, **more: Any) -> dict[str, Any]:
    found = {"kind": "engine", "model": "S", "dtype": "float16", "preprocessing": "exact", "case": case}
    rates = {"images_s": 45000.0, "graph_images_s": 60000.0, "share_of_graph": 0.75, "threads": 16, "photos": "made"}
    return {**found, **rates, "reason": None, **more}


STAGES = {"alone": {"read": 9e5, "decode": 5e4, "forward": 59000.0}, "bound_by": "decode", "together_by_slowest": 0.9}


def test_the_tables_show_what_was_measured(results: Results) -> None:
    rates = {"engine, exact": 9000.0, "pipeline": 600.0, "dataloader-compile": 1800.0}
    beside = row("jpeg256", kind="loops", images_per_second=rates)
    rows = [row("batch"), row("jpeg256", **STAGES), {**row("photos"), "reason": "no time was left for it"}, beside]
    stamp = {"device": "H200", "driver": "580", "torch": "2.13.0", "date": "2026-11-28"}
    environment = {"git": {"commit": "0123456789", "dirty": False}, "kernels": None}
    text = table.engine({"rows": rows, "stamp": stamp, "environment": environment})
    assert "H200, driver 580, 16 threads" in text
    assert "made of smooth noise" in text
    assert "| one uint8 array of many images, exact | 45,000 | 60,000 | 75 % | – | – | – | – | – | – |" in text
    assert "| JPEG of 256 px, exact | 45,000 | 60,000 | 75 % | 900,000 | 50,000 | – | – | 59,000 | 90 % |" in text
    assert "| in turns | engine, exact | transformers' pipeline | DataLoader and torch.compile |" in text
    assert "| JPEG of 256 px | 9,000 | 600 (15.0×) | 1,800 (5.0×) |" in text
    summary = {"environment": {"gpu": {"name": "H200"}}, "stages": {}, "models": [], "operators": [], "engine": rows}
    shown = json.dumps([[*column.cells] for made in report.tables(summary) for column in made.columns])
    assert "75 %" in shown
    assert "5.00\\u00d7" in shown  # as JSON writes the sign
    assert "1 of engine" in shown
