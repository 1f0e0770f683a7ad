"""Histograms as SVG."""

import html
from bisect import bisect_right
from collections.abc import Sequence

RANKS = ["1", "2-5", "6-10", "11-50", "51-100", "101-500", "501-1000", "1001 or more"]
NATS = [*(f"{k} to {k + 1}" for k in range(9)), "9 or more"]
TENTHS = [f"{10 * k} to {10 * k + 10}%" for k in range(10)]
HISTOGRAMS: tuple[tuple[str, Sequence[float], Sequence[str]], ...] = (
    # Their names, where all bars but the first begin, and the labels of all bars.
    ("Rank", [2, 6, 11, 51, 101, 501, 1001], RANKS),
    ("Entropy of the prediction, in nats", range(1, 10), NATS),
    ("Probability of the most likely token", [k / 10 for k in range(1, 10)], TENTHS),
)
WIDTH, HEIGHT, ABOVE, BELOW = 272, 132, 24, 18  # of a picture, and of the margins in it


def histogram(
    name: str, starts: Sequence[float], labels: Sequence[str], values: Sequence[float]
) -> str:
    """Bars for shares of a total. A screen reader reads the shares as a list."""
    counts = [0] * len(labels)
    for value in values:
        counts[bisect_right(starts, value)] += 1
    texts = [f"{a}: {n / max(1, len(values)):.1%}" for a, n in zip(labels, counts, strict=True)]
    width, base = WIDTH / len(labels), HEIGHT - BELOW
    bars = ""
    for k, (text, count) in enumerate(zip(texts, counts, strict=True)):
        height = (base - ABOVE) * count / max(1, *counts)
        bars += (
            f'<rect x="{k * width + 1:.1f}" y="{base - height:.1f}" width="{width - 2:.1f}" '
            f'height="{height:.1f}"><title>{html.escape(text)}</title></rect>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{". ".join([name, *texts])}">'
        f'<text x="0" y="12">{name}</text>{bars}'
        f'<line stroke="gray" x1="0" x2="{WIDTH}" y1="{base}" y2="{base}"/>'
        f'<text x="0" y="{HEIGHT - 4}">{labels[0]}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{labels[-1]}</text></svg>\n'
    )
