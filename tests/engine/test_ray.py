"""Many engines in a Ray cluster: the answers of one, every image once, whatever dies on the way."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import mobilevit_fast as mvf
from mobilevit_fast.checkpoints import write_checkpoint
from mobilevit_fast.data import digits_checkpoint
from mobilevit_fast.engine import Engine
from testing.pairs import tiny_config
from testing.paths import REPOSITORY
from tests.engine.pictures import encoded, every_kind, picture, written
from tests.integrations import zoo

ray = pytest.importorskip("ray", reason="Ray is not installed, or not for this Python", exc_type=ImportError)
pytest.importorskip("ray.data", reason="Ray is installed without its part for data", exc_type=ImportError)
pytest.importorskip("ray.serve", reason="Ray is installed without its part for services", exc_type=ImportError)

from mobilevit_fast.integrations import ray as integration  # noqa: E402  # all of it imports Ray
from mobilevit_fast.integrations.ray import Classifier  # noqa: E402
from tests.engine.ray_actors import CRASHED, LATE, SIGNALS, Crashing  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.* rescaled once more")  # of the file of fractions

CPUS = 3  # that Ray counts with, whatever the machine has
BAD = {"broken.jpg": b"\xff\xd8\xffno", "empty.png": b"", "text.jpg": b"hello"}
EVERY = ("label", "score", "embedding", "logits")
"""Outputs of a classification model; their values are the same in batches of every size."""
PATIENCE_S = 300.0


def batch_of(files: dict[str, Any], **others: Any) -> dict[str, np.ndarray]:
    contents = np.empty(len(files), object)
    contents[:] = [*files.values()]
    return {"path": np.array([*files], object), "bytes": contents, **others}


def expected_rows(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """The answers of one engine, as rows."""
    model = mvf.MobileViTForImageClassification.from_pretrained(digits_checkpoint()).float()
    engine = Engine(model, mvf.MobileViTImageProcessor.from_pretrained(digits_checkpoint()), outputs=EVERY, top_k=2)
    rows = {}
    for path, one in zip(files, engine.stream([*files.values()]), strict=True):
        row: dict[str, Any] = {"path": path, "error": one.error}
        row |= {"label": [*one.labels] or None, "index": [*one.indices] or None, "score": [*one.scores] or None}
        for name in ("embedding", "logits"):
            vector = getattr(one, name)
            row[name] = None if vector is None else vector.tolist()
        rows[path] = row
    return rows


def by_path(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows by their paths, each of which is there once."""
    found = {row["path"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_a_batch_is_answered_as_by_an_engine_and_keeps_its_other_columns() -> None:
    files = {**every_kind(), **BAD}
    numbers = np.arange(len(files))
    table = Classifier("digits", outputs=EVERY, top_k=2)(batch_of(files, number=numbers))
    assert table.column_names == ["path", "number", "error", "label", "index", "score", "embedding", "logits"]
    rows = [row | {"number": number} for number, row in enumerate(expected_rows(files).values())]
    assert table.to_pylist() == [{name: row[name] for name in table.column_names} for row in rows]


def test_columns_have_the_same_types_whatever_is_in_a_batch() -> None:
    classifier = Classifier("digits", outputs=EVERY)
    good = classifier(batch_of({"a.jpg": encoded(picture(64, 80))}))
    bad = classifier(batch_of(BAD))
    assert good.schema.types == bad.schema.types
    assert good["error"].null_count == 1
    assert bad["error"].null_count == 0
    assert bad["label"].null_count == bad["embedding"].null_count == len(BAD)


def test_what_is_no_image_file_and_the_same_path_twice() -> None:
    content = encoded(picture(64, 80))
    batch = {"file": np.array(["a", "a", "b"]), "content": np.array([content, content, None], object)}
    rows = Classifier("digits", bytes_column="content", path_column="file")(batch).to_pylist()
    assert [row["file"] for row in rows] == ["a", "a", "b"]
    assert rows[0] == rows[1]
    assert rows[2]["error"] == "expected an encoded image as bytes, got NoneType"


def test_a_segmentation_model_answers_with_masks(tmp_path: Path) -> None:
    model = zoo.native_segmentation(tiny_config(output_stride=16))
    processor = mvf.MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size=64)
    write_checkpoint(model, tmp_path, processor=processor)
    content = encoded(picture(70, 90))
    classifier = Classifier(str(tmp_path))
    rows = classifier(batch_of({"a.jpg": content, "bad.jpg": b"no"})).to_pylist()
    mask = next(iter(Engine(model, processor).stream([content]))).mask
    assert mask is not None
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(rows[0]["mask"]))), mask)
    assert rows[1]["mask"] is None
    assert rows[1]["error"]
    with pytest.raises(ValueError, match="outputs: expected logits, mask of a segmentation model, got label"):
        Classifier(str(tmp_path), outputs=["label"])


def test_batches_that_do_not_fit_are_refused() -> None:
    classifier = Classifier("digits")
    with pytest.raises(ValueError, match=r"expected the columns bytes and path, .*include_paths=True, got bytes"):
        classifier({"bytes": np.array([b""], object)})
    with pytest.raises(ValueError, match="expected other names than those of its answers, got label"):
        classifier(batch_of(BAD, label=np.arange(len(BAD))))
    with pytest.raises(TypeError, match='expected batch_format="numpy", got a batch that is a Table'):
        classifier(classifier(batch_of(BAD)))


def test_the_device_and_the_threads_are_those_of_the_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []

    def any_device(name: str) -> torch.device:
        devices.append(name)
        return torch.device("cpu")

    monkeypatch.setattr(integration, "device_of", any_device)
    for given, threads in (({"GPU": 0.5, "CPU": 3.0}, 3), ({"GPU": 1.0}, 1), ({"CPU": 0.5}, 1)):
        monkeypatch.setattr(integration, "_given_by_ray", lambda given=given: given)
        assert Classifier("digits").engine.decode_threads == threads
    assert Classifier("digits", device="xpu", decode_threads=2).engine.decode_threads == 2
    assert devices == ["cuda", "cuda", "cpu", "xpu"]


def processes_of(signals: Path) -> list[int]:
    """All that have the variable in the environment that they were started with."""
    found = []
    entry = f"{SIGNALS}={signals}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if entry in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it is gone, or another user's
            continue
    return found


def wait_for(is_there: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_there():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A cluster of this machine, of which nothing is left in the end; the folder of its signals."""
    folder = Path(tempfile.mkdtemp(prefix="mvf-ray-"))  # not that of pytest: paths of sockets may have 107 characters
    environment = {
        SIGNALS: str(folder),
        "PYTHONPATH": os.pathsep.join(sys.path),  # where workers find this package, and the tests' own classes
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",  # which would write a token into the home folder
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning that this will be the default
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        try:
            ray.init(
                num_cpus=CPUS,
                include_dashboard=False,
                object_store_memory=200 * 2**20,
                log_to_driver=False,
                _temp_dir=str(folder),
            )
            ray.data.DataContext.get_current().enable_progress_bars = False
            assert len(processes_of(folder)) >= 2
            yield folder
        finally:
            ray.shutdown()
            end = time.monotonic() + 30
            while processes_of(folder) and time.monotonic() < end:
                time.sleep(0.1)
            left = processes_of(folder)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)
    assert left == [], "processes of Ray outlived it"


class Started(NamedTuple):
    """A process, and the file of what it says."""

    process: subprocess.Popen[bytes]
    said: Path


@pytest.fixture
def start(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Started]]:
    """Start Python within the cluster; it is ended with the test."""
    processes: list[subprocess.Popen[bytes]] = []
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    folder = tmp_path_factory.mktemp("said")

    def started(*arguments: object) -> Started:
        said = folder / f"{len(processes)}.txt"
        with said.open("wb") as file:
            command = [sys.executable, *map(str, arguments)]
            processes.append(subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT))
        return Started(processes[-1], said)

    yield started
    for process in processes:
        process.kill()
        process.wait()


def answered(images: Path, classifier: type[Classifier], actors: int, cpus: float, **options: Any) -> Any:
    return ray.data.read_binary_files(str(images), include_paths=True).map_batches(
        classifier,
        fn_constructor_kwargs={"model": "digits", **options},
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=cpus,
        batch_size=4,
    )


@pytest.mark.slow
def test_two_actors_one_of_which_dies_answer_every_image_once_as_one_engine_does(cluster: Path, tmp_path: Path) -> None:
    files = {**every_kind(), **BAD}
    paths = map(str, written(tmp_path, files))
    rows = by_path(answered(tmp_path, Crashing, 2, 1, outputs=EVERY, top_k=2).take_all())
    assert (cluster / CRASHED).exists()
    expected = expected_rows(dict(zip(paths, files.values(), strict=True)))
    assert rows.keys() == expected.keys()
    for path, row in rows.items():
        plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}
        assert plain.pop("threads") == 1  # of the cores that this machine has, those that Ray gave
        assert plain == expected[path]


GATED_EXAMPLE = """
import runpy, sys
sys.argv = sys.argv[1:]
import mobilevit_fast.integrations.ray
from tests.engine.ray_actors import Gated
mobilevit_fast.integrations.ray.Classifier = Gated
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""The example, which never comes to an end."""


@pytest.mark.slow
@pytest.mark.thorough  # two clusters, half a minute each; that a killed actor is retried has a test above
def test_the_example_goes_on_after_it_was_killed(start: Callable[..., Started], tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    early = {f"{i:02}.png": encoded(picture(20, 20, i), "PNG") for i in range(8)} | {"09.jpg": b"no image"}
    late = {f"{LATE} {i:02}.JPG": encoded(picture(20, 20, i)) for i in range(9)}
    paths = [str(path) for path in written(images, {**early, **late})]
    written(images, {"notes.txt": b"not to be read"})
    example = REPOSITORY / "examples" / "ray_batch_inference.py"
    arguments = (example, images, out, "--batch-size", 3, "--outputs", "label,score")

    checkpoint = tmp_path / "out-checkpoint"

    def finished() -> list[str]:
        """Beginnings of the names of the files whose rows will not be made again."""
        return [file.stem for file in checkpoint.glob("*.parquet") if not file.name.endswith(".pending.parquet")]

    first, said = start("-c", GATED_EXAMPLE, *arguments)
    wait_for(lambda: finished() or first.poll() is not None, "the first rows")
    first.kill()
    assert first.wait() == -signal.SIGKILL, said.read_text()
    done = {file: file.read_bytes() for stem in finished() for file in out.glob(f"{stem}*")}
    assert 0 < sum(pq.read_metadata(file).num_rows for file in done) <= len(early)

    second, said = start(*arguments)
    assert second.wait(PATIENCE_S) == 0, said.read_text()
    rows = by_path(pq.read_table(out).to_pylist())
    assert sorted(rows) == sorted(paths)
    assert all(file.read_bytes() == content for file, content in done.items())
    assert [path for path, row in rows.items() if row["error"]] == [str(images / "09.jpg")]
    assert all(len(row["label"]) == len(row["score"]) == 5 for row in rows.values() if not row["error"])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
@pytest.mark.thorough  # its requests are batches as those of the tests above; Ray Serve takes half a minute to begin
def test_the_example_of_a_service_answers_over_http(start: Callable[..., Started]) -> None:
    port = free_port()
    service, said = start(REPOSITORY / "examples" / "ray_serve.py", "--port", port, "--top-k", 2)

    def ask(path: str, body: bytes | None = None) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=PATIENCE_S) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def is_up() -> bool:
        assert service.poll() is None, said.read_text()
        try:
            return ask("/health")[0] == 200
        except OSError:
            return False

    wait_for(is_up, "the service")
    files = {str(i): encoded(picture(60, 50, i)) for i in range(24)}
    with ThreadPoolExecutor(len(files)) as threads:
        answers = [*threads.map(lambda content: ask("/classify", content), files.values())]
    expected = expected_rows(files)
    for name, (status, text) in zip(files, answers, strict=True):
        assert status == 200
        found = json.loads(text)["predictions"]
        assert [one["index"] for one in found] == expected[name]["index"]
        assert [one["label"] for one in found] == expected[name]["label"]
        assert [one["score"] for one in found] == expected[name]["score"]
    health = json.loads(ask("/health")[1])
    assert health["images"] == len(files)
    assert health["batches"] < len(files)

    for body in (b"no image", b"", b"\xff\xd8\xff"):
        status, text = ask("/classify", body)
        assert status == 422
        assert text.endswith("\n")
        assert text.count("\n") == 1
        assert "expected" in text
    for path, body in (("/classify", None), ("/health", b""), ("/nothing", None)):
        assert ask(path, body) == (404, "expected POST /classify or GET /health\n")
    service.send_signal(signal.SIGINT)
    assert service.wait(PATIENCE_S) is not None
    with pytest.raises(OSError, match="refused"):
        ask("/health")
