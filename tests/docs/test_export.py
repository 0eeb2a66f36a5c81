"""The code of docs/export.md writes an ONNX file and a package of AOTInductor, which another process runs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mobilevit_fast as mvf
from testing.pairs import abridged
from testing.paths import REPOSITORY
from testing.tolerance import close
from tests.checkpoints.helpers import randomised
from tests.docs.running import EXPORTING, SMALL, run_page

RUN_PACKAGE = """
import sys
import torch
package, images, logits = sys.argv[1:]
try:
    torch._inductor.aoti_load_package(package)(torch.load(images)[0])
except RuntimeError as error:
    assert "mobilevit_fast::" in str(error), error
else:
    raise AssertionError("ran without the operators")
import mobilevit_fast
program = torch._inductor.aoti_load_package(package)
torch.save([program(x).logits for x in torch.load(images)], logits)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning")
def test_python_of_the_page_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled ahead of time, run in another process, which has to import the operators, with other batches."""
    config = mvf.MobileViTConfig(**SMALL, num_labels=3)
    small = abridged(randomised(mvf.MobileViTForImageClassification(config)))
    monkeypatch.setattr(mvf, "MobileViTForImageClassification", lambda _: small)
    # The wrapper's speed is not tested, and optimising it takes a third of the time.
    monkeypatch.setattr(torch._inductor.config.aot_inductor, "compile_wrapper_opt_level", "O0")
    model = run_page(EXPORTING)["model"]
    assert (place / "model.onnx").is_file()
    package, images, logits = (place / name for name in ("model.pt2", "images.pt", "logits.pt"))
    batches = [torch.rand(size, 3, 256, 256) for size in (1, 5)]
    torch.save(batches, images)
    subprocess.run([sys.executable, "-c", RUN_PACKAGE, package, images, logits], check=True, cwd=REPOSITORY)
    for x, got in zip(batches, torch.load(logits), strict=True):
        with torch.inference_mode():
            close(got, model(x).logits)
