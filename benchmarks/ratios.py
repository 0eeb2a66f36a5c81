"""How many times as long others take as this package, and how sure that is.

A time is worth little on a machine that others use as well: it moves by a third within an hour. A ratio of two times
that were measured turn by turn is what is claimed, and what a second run has to find again.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, Self


class Ratio(NamedTuple):
    """The quotient of two medians. Its spread is from quantiles: their p20 by our p80, and the other way round."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, theirs: dict[str, Any], ours: dict[str, Any]) -> Self:
        """Ratio of two rows with ``median_ms`` and, where there were several rounds, ``p20_ms`` and ``p80_ms``."""
        (their, their_low, their_high), (our, our_low, our_high) = (
            (row["median_ms"], row.get("p20_ms") or row["median_ms"], row.get("p80_ms") or row["median_ms"])
            for row in (theirs, ours)
        )
        return cls(their / our, their_low / our_high, their_high / our_low)

    def agrees(self, other: "Ratio") -> bool:
        """Whether the spreads have something in common."""
        return self.low <= other.high and other.low <= self.high

    def __str__(self) -> str:
        return f"{self.median:.2f}× ({self.low:.2f}–{self.high:.2f})"


def fastest(theirs: Iterable[dict[str, Any]], ours: dict[str, Any] | None) -> Ratio | None:
    """Ratio of the row that takes the least time to ours; None without others or without this package."""
    least = min(theirs, key=lambda row: float(row["median_ms"]), default=None)
    return None if least is None or ours is None else Ratio.of(least, ours)
