"""Files on the disk and on the hub: written whole, read within limits."""

from mobilevit_fast.files.hub import HUB_ERRORS, HubOptions, download, download_or_explain, reason
from mobilevit_fast.files.json_object import parse_json_object, read_json_object
from mobilevit_fast.files.locks import lock, unlock
from mobilevit_fast.files.writing import (
    encoded_picture,
    find,
    open_found,
    remove_leftovers,
    sync_folder,
    user_path,
    write_atomically,
    write_together,
)

__all__ = [
    "HUB_ERRORS",
    "HubOptions",
    "download",
    "download_or_explain",
    "encoded_picture",
    "find",
    "lock",
    "open_found",
    "parse_json_object",
    "read_json_object",
    "reason",
    "remove_leftovers",
    "sync_folder",
    "unlock",
    "user_path",
    "write_atomically",
    "write_together",
]
