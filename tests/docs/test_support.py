"""The generated page says what the code says."""

import pytest

from docs import generate_support
from mobilevit_fast import native


def test_the_support_page_is_current() -> None:
    current = generate_support.TARGET.read_text(encoding="utf-8")
    assert current == generate_support.render(), "run `python -m docs.generate_support`"


def test_the_page_names_every_variant() -> None:
    extension = native.extension()
    if extension is None:
        pytest.skip(f"native libraries: {native.status()['_C'].reason}")
    with pytest.raises(ValueError, match=f"expected one of {', '.join(generate_support.VARIANTS)}, got"):
        extension.set_cpu_isa("another")
