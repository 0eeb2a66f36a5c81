"""Files on the disk and on the hub: written whole, read within limits."""

from mobilevit_fast.files.hub import HUB_ERRORS, HubOptions, download, reason
from mobilevit_fast.files.json_object import parse_json_object, read_json_object
from mobilevit_fast.files.writing import encoded_picture, user_path, write_atomically, write_together

__all__ = [
    "HUB_ERRORS",
    "HubOptions",
    "download",
    "encoded_picture",
    "parse_json_object",
    "read_json_object",
    "reason",
    "user_path",
    "write_atomically",
    "write_together",
]
