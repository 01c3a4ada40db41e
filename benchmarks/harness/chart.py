"""A bar chart as SVG, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

__all__ = ["bars"]

_WIDTH, _LABELS, _VALUES = 720, 170, 90
_TOP, _STEP, _BAR = 58, 26, 16

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px }
.unit { fill: #656d76 }
rect { fill: #9aa4af }
.ours { fill: #1a7f37 }
line { stroke: #1f2328 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .unit { fill: #8d96a0 } rect { fill: #57606a } .ours { fill: #3fb950 }
  line { stroke: #e6edf3 }
}
"""


def bars(
    title: str,
    unit: str,
    values: Sequence[tuple[str, float, float | None, float | None]],
    *,
    form: str = ",.0f",
) -> str:
    """Draw horizontal bars, from the top down.

    Args:
        title: stands above.
        unit: stands below that.
        values: name, value, and the least and most where a line shall show them.
        form: how values are written, for `format`.
    """
    height = _TOP + _STEP * max(1, len(values)) + 6
    room = _WIDTH - _LABELS - _VALUES
    most = max([max(value, high or value) for _, value, _, high in values] or [1.0]) or 1.0
    label = escape(title, {'"': "&quot;"})
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="8" y="22">{escape(title)}</text>',
        f'<text class="unit" x="8" y="42">{escape(unit)}</text>',
    ]
    for i, (name, value, low, high) in enumerate(values):
        top = _TOP + i * _STEP
        length = value / most * room
        ours = ' class="ours"' if name.startswith("geventws") else ""
        end = length
        parts.append(f'<text x="{_LABELS - 8}" y="{top + 13}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect{ours} x="{_LABELS}" y="{top}" width="{length:.1f}" height="{_BAR}" rx="2"/>')
        if low is not None and high is not None:
            left, right = _LABELS + low / most * room, _LABELS + high / most * room
            middle = top + _BAR / 2
            parts.append(f'<line x1="{left:.1f}" y1="{middle}" x2="{right:.1f}" y2="{middle}"/>')
            end = max(length, high / most * room)
        parts.append(f'<text x="{_LABELS + end + 6:.1f}" y="{top + 13}">{format(value, form)}</text>')
    if not values:
        parts.append(f'<text class="unit" x="{_LABELS}" y="{_TOP + 13}">nothing was measured</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
