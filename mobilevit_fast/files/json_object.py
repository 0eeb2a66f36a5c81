"""Reading JSON that others wrote: bounded, and with one kind of error."""

import json
from pathlib import Path
from typing import Any

from mobilevit_fast import limits
from mobilevit_fast.files.writing import open_found


def read_json_object(path: Path, expected: str = "a JSON file") -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else, or more than the limits allow; the message begins with the path.
    """
    with open_found(path) as file:
        content = file.read(limits.MAX_JSON_BYTES + 1)
    try:
        return parse_json_object(content, expected)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def parse_json_object(content: bytes, expected: str = "a JSON file") -> dict[str, Any]:
    """The object in JSON text as UTF-8.

    Raises:
        ValueError: the text is something else, or more than the limits allow.
    """
    if len(content) > limits.MAX_JSON_BYTES:
        raise ValueError(f"expected {expected} of {limits.raised('MAX_JSON_BYTES')} bytes, got a larger one")
    try:
        values = json.loads(content.decode("utf-8"))
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, and integers of thousands of digits
        raise ValueError(f"expected {expected}, got one that fails with: {error}") from error
    except RecursionError:
        values = None
    if values is None or _depth(values) > limits.MAX_JSON_DEPTH:
        raise ValueError(f"expected {expected} nested {limits.raised('MAX_JSON_DEPTH')} times, got a deeper one")
    if not isinstance(values, dict):
        raise ValueError(f"expected a JSON object, got {type(values).__name__}")
    return values


def _depth(values: Any) -> int:
    """How many lists and objects lie inside each other, without recursion."""
    depth, level = 0, [values]
    while level := [one for one in level if isinstance(one, (dict, list))]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth
