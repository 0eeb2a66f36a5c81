"""The generated page says what the code says."""

from docs import generate_support


def test_the_support_page_is_current() -> None:
    current = generate_support.TARGET.read_text(encoding="utf-8")
    assert current == generate_support.render(), "run `python -m docs.generate_support`"
