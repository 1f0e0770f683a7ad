"""The loss curves of a run as an SVG picture, drawn with the standard library alone."""

import math
from collections.abc import Callable, Iterator, Sequence

Point = tuple[float, float]  # step, loss

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 44, 52  # margins around the axes
MAX_POINTS = 400  # per curve; more are averaged
# No CSS variables: not every viewer of SVG knows them.
STYLE = """
  svg { background: #fff; font: 13px sans-serif; }
  text { fill: #333; }
  line { stroke: #ddd; }
  polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
  .training { stroke: #2f74b5; }
  .validation { stroke: #c2410c; }
  circle.training { fill: #2f74b5; }
  circle.validation { fill: #c2410c; }
  @media (prefers-color-scheme: dark) {
    svg { background: #111; }
    text { fill: #ddd; }
    line { stroke: #3a3a3a; }
    .training { stroke: #6cb0ee; }
    .validation { stroke: #fb923c; }
    circle.training { fill: #6cb0ee; }
    circle.validation { fill: #fb923c; }
  }
"""


def loss_svg(training: Sequence[Point], validation: Sequence[Point]) -> str:
    """Draw both curves in one picture, which follows the reader's light or dark color scheme.

    Args:
      training, validation: step and loss, in nats per token, by increasing step; may be empty.
        Losses that are not finite are left out.
    Returns: an SVG document.
    """
    finite = [[p for p in curve if math.isfinite(p[1])] for curve in (training, validation)]
    curves = dict(zip(("training", "validation"), map(_averaged, finite), strict=True))
    points = [*curves["training"], *curves["validation"]]
    steps, losses = _ticks([step for step, _ in points]), _ticks([loss for _, loss in points])
    x, y = _scale(steps, LEFT, WIDTH - RIGHT), _scale(losses, HEIGHT - BOTTOM, TOP)
    body = [*_axes(steps, losses, x, y)]
    for name, curve in curves.items():
        body += _curve(name, [(x(step), y(loss)) for step, loss in curve])
    body += _legend(curves)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    title = "<title>Training and validation loss</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *body, "</svg>\n"])


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


def _scale(ticks: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    """The function from a value to its place between `start` and `end`, in pixels."""
    low, high = ticks[0], ticks[-1]
    return lambda value: round(start + (end - start) * (value - low) / (high - low), 1)


def _axes(
    steps: Sequence[float],
    losses: Sequence[float],
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> Iterator[str]:
    right, bottom, middle = WIDTH - RIGHT, HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
    for loss in losses:
        yield f'<line x1="{LEFT}" y1="{y(loss)}" x2="{right}" y2="{y(loss)}"/>'
        yield f'<text x="{LEFT - 8}" y="{y(loss) + 4}" text-anchor="end">{loss:g}</text>'
    for step in steps:
        yield f'<text x="{x(step)}" y="{bottom + 20}" text-anchor="middle">{step:g}</text>'
    yield f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">train step</text>'
    yield (
        f'<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">'
        "loss (nats per token)</text>"
    )


def _legend(curves: dict[str, list[Point]]) -> Iterator[str]:
    """The name of each curve that has points, with its last loss."""
    for i, (name, points) in enumerate(curves.items()):
        if points:
            x = LEFT + 190 * i
            yield f'<polyline class="{name}" points="{x},22 {x + 22},22"/>'
            yield f'<text x="{x + 30}" y="26">{name} loss {points[-1][1]:.3f}</text>'


def _curve(name: str, places: list[Point]) -> Iterator[str]:
    joined = " ".join(f"{x},{y}" for x, y in places)
    yield f'<polyline class="{name}" points="{joined}"/>'
    if name == "validation" or len(places) == 1:  # a line of one point is invisible
        for x, y in places:
            yield f'<circle class="{name}" cx="{x}" cy="{y}" r="2.5"/>'
