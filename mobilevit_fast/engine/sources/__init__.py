"""Sources of images of every kind, one after another, without holding all of them at once."""

from mobilevit_fast.engine.sources.listing import count, each, is_missing, iterate, take
from mobilevit_fast.engine.sources.source import Source
from mobilevit_fast.engine.sources.walking import SUFFIXES

__all__ = ["SUFFIXES", "Source", "count", "each", "is_missing", "iterate", "take"]
