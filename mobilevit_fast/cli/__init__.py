"""The command line: classify and segment photos, convert checkpoints, see what acceleration does."""

from mobilevit_fast.cli.app import app, main

__all__ = ["app", "main"]
