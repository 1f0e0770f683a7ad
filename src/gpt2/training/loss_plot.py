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
  path { stroke: #888; stroke-opacity: 0.3; }
  polyline { fill: none; stroke: currentColor; stroke-width: 2; }
  .training { color: #3b82c4; }
  .validation { color: #d9622b; }
  text[class], circle { fill: currentColor; }
  @media (prefers-color-scheme: dark) { svg { background: #111; fill: #ddd; } }
</style>
<text x="380" y="410" text-anchor="middle">train step</text>
<text transform="translate(18 206) rotate(-90)" text-anchor="middle">loss (nats per token)</text>"""


def loss_svg(training: Sequence[Point], validation: Sequence[Point]) -> str:
    """An SVG document of both curves. Either may be empty; steps increase."""
    curves = {"training": _averaged(training), "validation": _averaged(validation)}
    points = [point for curve in curves.values() for point in curve]
    steps, losses = _ticks([step for step, _ in points]), _ticks([loss for _, loss in points])
    parts = [HEAD]
    for loss in losses:
        y = _scaled(loss, losses, BOTTOM, TOP)
        parts.append(f'<path d="M{LEFT} {y}H{RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{loss:g}</text>')
    for step in steps:
        x = _scaled(step, steps, LEFT, RIGHT)
        parts.append(f'<text x="{x}" y="{BOTTOM + 20}" text-anchor="middle">{step:g}</text>')
    for left, (name, curve) in zip((LEFT, LEFT + 190), curves.items(), strict=True):
        xs = [_scaled(step, steps, LEFT, RIGHT) for step, _ in curve]
        ys = [_scaled(loss, losses, BOTTOM, TOP) for _, loss in curve]
        joined = " ".join(f"{x},{y}" for x, y in zip(xs, ys, strict=True))
        parts.append(f'<polyline class="{name}" points="{joined}"/>')
        if curve:
            label = f"{name} loss {curve[-1][1]:.3f}"
            parts.append(f'<text class="{name}" x="{left}" y="26">{label}</text>')
        if name == "validation" or len(curve) == 1:  # a line of one point is invisible
            dot = f'<circle class="{name}" r="2.5"'
            parts += [f'{dot} cx="{x}" cy="{y}"/>' for x, y in zip(xs, ys, strict=True)]
    return "\n".join([*parts, "</svg>\n"])


def _averaged(points: Sequence[Point]) -> list[Point]:
    """At most MAX_POINTS points, each the mean of neighboring ones; infinite ones are left out."""
    points = [point for point in points if math.isfinite(point[1])]
    size = max(1, math.ceil(len(points) / MAX_POINTS))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(s for s, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _ticks(values: Sequence[float]) -> list[float]:
    """Three to nine round numbers that enclose all values."""
    low, high = min(values, default=0), max(values, default=1)
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    power = 10 ** math.floor(math.log10((high - low) / 2))
    space = next(power * m for m in (1, 2, 5, 10) if (high - low) / (power * m) <= 7)
    return [i * space for i in range(math.floor(low / space), math.ceil(high / space) + 1)]


def _scaled(value: float, ticks: Sequence[float], start: float, end: float) -> float:
    return round(start + (end - start) * (value - ticks[0]) / (ticks[-1] - ticks[0]), 1)
