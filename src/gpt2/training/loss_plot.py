"""The loss curves of a run, drawn as SVG."""

import math
from collections.abc import Sequence

Point = tuple[float, float]  # train step, loss in nats per token

MAX_POINTS = 400  # per curve; more are averaged
LEFT, RIGHT, TOP, BOTTOM = 64, 696, 44, 368  # where the axes end in a picture of 720 x 420
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 420" role="img">
<title>Training and validation loss</title>
<style>
  svg { background: #fff; fill: #333; font: 13px sans-serif; }
  path, polyline { fill: none; stroke-width: 2; }
  path { stroke: #888; stroke-opacity: 0.3; stroke-width: 1; }
  .training { stroke: #3b82c4; }
  .validation { stroke: #d9622b; }
  text { stroke: none; }
  text.training, circle.training { fill: #3b82c4; }
  text.validation, circle.validation { fill: #d9622b; }
  @media (prefers-color-scheme: dark) { svg { background: #111; fill: #ddd; } }
</style>
<text x="380" y="410" text-anchor="middle">train step</text>
<text transform="translate(18 206) rotate(-90)" text-anchor="middle">loss (nats per token)</text>"""


def loss_svg(training: Sequence[Point], validation: Sequence[Point]) -> str:
    """Draw both curves in one picture, which follows the reader's light or dark color scheme.

    Args:
      training, validation: by increasing step; either may be empty.
    Returns: an SVG document.
    """
    curves = {"training": _averaged(training), "validation": _averaged(validation)}
    points = [point for curve in curves.values() for point in curve]
    steps, losses = _ticks([step for step, _ in points]), _ticks([loss for _, loss in points])
    parts = [HEAD]
    for loss in losses:
        y = _scaled(loss, losses, BOTTOM, TOP)
        parts.append(f'<path d="M{LEFT} {y}H{RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:g}" text-anchor="end">{loss:g}</text>')
    for step in steps:
        x = _scaled(step, steps, LEFT, RIGHT)
        parts.append(f'<text x="{x}" y="{BOTTOM + 20}" text-anchor="middle">{step:g}</text>')
    for x, (name, curve) in zip((LEFT, LEFT + 190), curves.items(), strict=True):
        if curve:
            parts.append(
                f'<text class="{name}" x="{x}" y="26">{name} loss {curve[-1][1]:.3f}</text>'
            )
        places = [
            (_scaled(s, steps, LEFT, RIGHT), _scaled(y, losses, BOTTOM, TOP)) for s, y in curve
        ]
        joined = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline class="{name}" points="{joined}"/>')
        if name == "validation" or len(curve) == 1:  # a line of one point is invisible
            parts += [f'<circle class="{name}" cx="{x}" cy="{y}" r="2.5"/>' for x, y in places]
    return "\n".join([*parts, "</svg>\n"])


def _averaged(points: Sequence[Point]) -> list[Point]:
    """At most MAX_POINTS points, each the mean of neighboring ones."""
    size = max(1, math.ceil(len(points) / MAX_POINTS))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(s for s, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _ticks(values: Sequence[float]) -> list[float]:
    """Three to nine round numbers that enclose all values.

    >>> _ticks([2.1, 3.9])
    [2.0, 2.5, 3.0, 3.5, 4.0]
    """
    low, high = min(values, default=0), max(values, default=1)
    if low == high:
        low, high = low - 0.5, high + 0.5
    power = 10 ** math.floor(math.log10((high - low) / 2))
    space = next(power * m for m in (1, 2, 5, 10) if (high - low) / (power * m) <= 7)
    first, last = math.floor(low / space), math.ceil(high / space)
    return [round(i * space, 10) for i in range(first, last + 1)]


def _scaled(value: float, ticks: Sequence[float], start: float, end: float) -> float:
    """The place of a value between `start` and `end`, in pixels."""
    return round(start + (end - start) * (value - ticks[0]) / (ticks[-1] - ticks[0]), 1)
