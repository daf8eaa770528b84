"""How the cost of an update grows with rows, entities and features: a plot on log axes with its slopes.

python -m benchmarks.peers --only cost --plot docs/_static/cost.svg
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.peers.acclimate import Acclimate
from benchmarks.peers.numpy_newton import NumpyNewton
from benchmarks.peers.table import Table
from benchmarks.peers.turns import in_turns
from benchmarks.peers.worlds import world

SWEEPS = {
    "rows of an entity": [(300, n, 10) for n in (1, 4, 16, 64, 256, 1024)],
    "entities": [(e, 50, 10) for e in (10, 100, 1_000, 10_000, 100_000)],
    "features": [(300, 50, d) for d in (2, 4, 8, 16, 32, 64)],
}
VARIES = {"rows of an entity": 1, "entities": 0, "features": 2}
COLOURS = {"acclimate": "#0a6ebd", "NumPy, batched Newton": "#888888"}


@dataclass
class Line:
    """CPU seconds along a sweep."""

    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)

    def slope(self) -> float:
        """On log axes, of the last three points: where what is constant no longer counts for most."""
        return float(np.polyfit(np.log(self.x[-3:]), np.log(self.y[-3:]), 1)[0])


def measure(*, rounds: int, plot: Path | None) -> Table:
    """CPU seconds of one update of all entities."""
    table = Table(
        "Cost",
        f"CPU seconds of an update along rows (300 entities, 10 features), entities (50 rows, 10 features) and "
        f"features (300 entities, 50 rows), one thread, medians of {rounds} rounds. `slope`: of the last "
        "three points on log axes.",
        {"along": "", "method": "", "from": ".1e", "to": ".1e", "slope": ".2f"},
    )
    panels: dict[str, dict[str, Line]] = {}
    peers = [Acclimate(), NumpyNewton()]
    with threadpool_limits(1):
        for along, cases in SWEEPS.items():
            lines = panels[along] = {peer.name: Line() for peer in peers}
            for case in cases:
                data = world(np.full(case[0], case[1]), case[2], seed=0)
                rows = {peer.name: peer.prepared(data) for peer in peers}
                works = {peer.name: (lambda peer=peer, rows=rows: peer.fit(rows[peer.name])) for peer in peers}
                for name, seconds in in_turns(works, rounds).items():
                    lines[name].x.append(case[VARIES[along]])
                    lines[name].y.append(float(np.median(seconds)))
            for name, line in lines.items():
                table.add(along=along, method=name, slope=line.slope(), **{"from": line.y[0], "to": line.y[-1]})
    if plot:
        plot.write_text(drawn(panels))
    return table


def drawn(panels: dict[str, dict[str, Line]]) -> str:
    """An SVG of panels side by side."""
    body = [_panel(260 * k, along, lines) for k, (along, lines) in enumerate(panels.items())]
    size = f'viewBox="0 0 {260 * len(panels)} 230" font-family="sans-serif" font-size="11" fill="#666"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n' + "\n".join(body) + "\n</svg>\n"


def _panel(left: int, along: str, lines: dict[str, Line]) -> str:
    x = _Axis.around([value for line in lines.values() for value in line.x], above=1.5)
    y = _Axis.around([value for line in lines.values() for value in line.y], above=8.0)  # room for the names

    def at(a: float, b: float) -> tuple[float, float]:
        return left + 42 + 200 * x.share(a), 180 - 165 * y.share(b)

    parts: list[str] = []
    for tick in x.ticks():
        across, _ = at(tick, y.low)
        parts += [_stroke([(across, 15), (across, 180)], "#8884", 1), _text(across, 194, f"{tick:,.0f}")]
    for tick in y.ticks():
        _, down = at(x.low, tick)
        parts += [
            _stroke([(left + 42, down), (left + 242, down)], "#8884", 1),
            _text(left + 22, down + 4, f"{tick:g}"),
        ]
    for k, (name, line) in enumerate(lines.items()):
        points = [at(a, b) for a, b in zip(line.x, line.y, strict=True)]
        parts.append(_stroke(points, COLOURS[name], 2))
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{COLOURS[name]}"/>' for a, b in points]
        text = f"{name}, slope {line.slope():.2f}"
        parts.append(f'<text x="{left + 48}" y="{26 + 13 * k}" fill="{COLOURS[name]}">{text}</text>')
    parts.append(_text(left + 142, 212, along if along != "entities" else "entities, of 50 rows"))
    parts.append(_text(left + 22, 10, "CPU s"))
    return "\n".join(parts)


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float

    @staticmethod
    def around(values: Sequence[float], *, above: float) -> "_Axis":
        return _Axis(min(values) / 1.2, max(values) * above)

    def share(self, value: float) -> float:
        return float((np.log10(value) - np.log10(self.low)) / (np.log10(self.high) - np.log10(self.low)))

    def ticks(self) -> list[float]:
        first, last = np.ceil(np.log10(self.low) - 1e-9), np.floor(np.log10(self.high) + 1e-9)
        return [10.0**k for k in np.arange(first, last + 1)]


def _stroke(points: Sequence[tuple[float, float]], colour: str, width: int) -> str:
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{text}</text>'
