"""Diagrams and badges as SVG text: boxes in a grid, arrows between them; no library and no network needed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

INK, FAINT, OURS, PLAIN = "#2b2f36", "#a7adb5", "#d1495b", "#f4f5f7"
_FONT = "font-family='Helvetica, Arial, sans-serif'"
_LINE, _PAD, _GAP_X, _GAP_Y = 17, 12, 84, 40
_LETTER = 6.7  # width of one at 12.5 px, generous


class Box(NamedTuple):
    """A box of a diagram.

    Attributes:
        column, row: place in the grid; halves are allowed.
        text: lines, the first of which is bold.
        ours: whether it is drawn in the package's colour.
    """

    column: float
    row: float
    text: str
    ours: bool = False


class Arrow(NamedTuple):
    """An arrow between two boxes, with words beside its middle."""

    start: str
    end: str
    words: str = ""


class _Rectangle(NamedTuple):
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2

    def edge_towards(self, x: float, y: float) -> tuple[float, float]:
        """Where the line from the middle to a point leaves the rectangle."""
        (a, b), half = self.middle, (self.width / 2, self.height / 2)
        dx, dy = x - a, y - b
        scale = min(h / abs(d) for h, d in zip(half, (dx, dy), strict=True) if d)
        return a + dx * scale, b + dy * scale


def diagram(title: str, boxes: Mapping[str, Box], arrows: Sequence[Arrow]) -> str:
    """SVG of boxes by name and arrows between them; columns are as wide and rows as high as their largest box."""
    lines = {name: box.text.split("\n") for name, box in boxes.items()}
    width = max(_LETTER * len(line) for text in lines.values() for line in text) + 2 * _PAD
    height = _LINE * max(map(len, lines.values())) + _PAD
    step_x, step_y = width + _GAP_X, height + _GAP_Y
    placed = {
        name: _Rectangle(
            _PAD + box.column * step_x,
            _PAD + box.row * step_y + (height - _LINE * len(lines[name]) - _PAD) / 2,
            width,
            _LINE * len(lines[name]) + _PAD,
        )
        for name, box in boxes.items()
    }
    right = max(r.x + r.width for r in placed.values()) + _PAD
    bottom = max(r.y + r.height for r in placed.values()) + _PAD
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {right:.0f} {bottom:.0f}' width='{right:.0f}' "
        f"role='img' aria-label={quoteattr(title)}>",
        f"<title>{escape(title)}</title>",
        "<defs><marker id='head' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='8' markerHeight='8' orient='auto'>"
        f"<path d='M0,0 L8,4 L0,8 z' fill='{INK}'/></marker></defs>",
        f"<rect width='{right:.0f}' height='{bottom:.0f}' fill='white'/>",
    ]
    for arrow in arrows:
        start, end = placed[arrow.start], placed[arrow.end]
        x1, y1 = start.edge_towards(*end.middle)
        x2, y2 = end.edge_towards(*start.middle)
        parts.append(
            f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{INK}' marker-end='url(#head)'/>"
        )
        if arrow.words:
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            half = _LETTER * 0.88 * len(arrow.words) / 2
            parts.append(f"<rect x='{x - half:.1f}' y='{y - 8:.1f}' width='{2 * half:.1f}' height='15' fill='white'/>")
            parts.append(_text(x, y + 4, arrow.words, size=11))
    for name, rectangle in placed.items():
        stroke = OURS if boxes[name].ours else FAINT
        parts.append(
            f"<rect x='{rectangle.x:.1f}' y='{rectangle.y:.1f}' width='{rectangle.width:.1f}' "
            f"height='{rectangle.height:.1f}' rx='5' fill='{PLAIN}' stroke='{stroke}' stroke-width='1.5'/>"
        )
        for i, line in enumerate(lines[name]):
            y = rectangle.y + _PAD / 2 + _LINE * (i + 0.76)
            parts.append(_text(rectangle.middle[0], y, line, bold=i == 0))
    return "\n".join([*parts, "</svg>"]) + "\n"


def badge(name: str, value: str) -> str:
    """SVG of a badge: a name on grey, a value on blue."""
    left, right = (round(_LETTER * 0.95 * len(text)) + 14 for text in (name, value))
    label = f"{name}: {value}"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{left + right}' height='20' role='img' "
        f"aria-label={quoteattr(label)}>\n"
        f"<title>{escape(label)}</title>\n"
        f"<rect width='{left + right}' height='20' rx='3' fill='#356a9c'/>\n"
        f"<path d='M3,0 H{left} V20 H3 A3,3 0 0 1 0,17 V3 A3,3 0 0 1 3,0' fill='#555b63'/>\n"
        f"{_text(left / 2, 14, name, size=11, fill='white')}\n"
        f"{_text(left + right / 2, 14, value, size=11, fill='white')}\n</svg>\n"
    )


def _text(x: float, y: float, words: str, *, size: float = 12.5, bold: bool = False, fill: str = INK) -> str:
    weight = " font-weight='bold'" if bold else ""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='middle' {_FONT} font-size='{size}'{weight} fill='{fill}'>"
        f"{escape(words)}</text>"
    )
