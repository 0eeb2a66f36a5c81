"""Data that ships with the package: a small trained checkpoint, so that everything can be tried without a network."""

from pathlib import Path

__all__ = ["digits_checkpoint"]


def digits_checkpoint() -> Path:
    """The folder of a MobileViT-XXS for handwritten digits, to be passed to `from_pretrained`.

    It holds config.json, model.safetensors (float16), preprocessor_config.json and README.md, the model card.
    `examples/train_digits.py` made it.
    """
    return Path(__file__).resolve().parent / "digits"
