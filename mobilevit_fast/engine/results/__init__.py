"""Answers on the disk: a folder of parts that are whole or not there, and can be gone on with."""

from mobilevit_fast.engine.results.folder import ResultsFolder, checked_folder
from mobilevit_fast.engine.results.reading import read_results

__all__ = ["ResultsFolder", "checked_folder", "read_results"]
