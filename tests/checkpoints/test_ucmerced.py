"""A trained file of ml-cvnets, the same weights in Hugging Face's names, and its logits in transformers."""

import csv

import torch
from PIL import Image
from safetensors.torch import load_file

from mobilevit_fast.checkpoints import from_huggingface, load_model, read_checkpoint
from mobilevit_fast.images import MobileViTImageProcessor
from testing.paths import UCMERCED, needs_ucmerced
from tests.checkpoints.helpers import assert_same_tensors

pytestmark = needs_ucmerced
CVNETS_FILE = "cvnets/best_model.pth"


def test_both_files_hold_the_same_tensors() -> None:
    assert UCMERCED is not None
    theirs = read_checkpoint(UCMERCED / CVNETS_FILE)
    ours = read_checkpoint(UCMERCED / "hf")
    assert (theirs.naming, ours.naming) == ("cvnets", "huggingface")
    assert_same_tensors(theirs.state_dict, ours.state_dict)
    assert_same_tensors(ours.state_dict, load_file(UCMERCED / "hf" / "model.safetensors"))


def test_the_file_of_ml_cvnets_is_written_back_as_it_was() -> None:
    assert UCMERCED is not None
    original = torch.load(UCMERCED / CVNETS_FILE, map_location="cpu", weights_only=True)
    state_dict = read_checkpoint(UCMERCED / "hf").state_dict
    assert_same_tensors(from_huggingface(state_dict, "cvnets"), dict(original))


def test_its_configuration_is_inferred() -> None:
    assert UCMERCED is not None
    inferred = read_checkpoint(UCMERCED / CVNETS_FILE).config.to_dict()
    described = read_checkpoint(UCMERCED / "hf").config.to_dict()
    for values in (inferred, described):  # names no shape can show, and notes of the writer
        for key in ("id2label", "label2id", "dtype", "transformers_version"):
            values.pop(key, None)
    assert inferred == described


def test_logits_are_those_of_transformers() -> None:
    assert UCMERCED is not None
    with (UCMERCED / "labels.csv").open(newline="") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    rows = list(range(0, len(names), len(names) // 8))[:8]
    (reference,) = load_file(UCMERCED / "reference_logits.safetensors").values()
    processor = MobileViTImageProcessor.from_pretrained(UCMERCED / "hf")
    images = [Image.open(UCMERCED / "images" / names[row]).convert("RGB") for row in rows]
    inputs = processor(images, return_tensors="pt")
    for source in ("hf", CVNETS_FILE):
        with torch.inference_mode():
            logits = load_model(UCMERCED / source)(**inputs).logits
        assert (logits - reference[rows]).abs().max() < 1e-4
