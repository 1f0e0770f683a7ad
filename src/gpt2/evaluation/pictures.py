"""Histograms as SVG, to be put into a page."""

import html
from collections.abc import Sequence

import numpy as np

RANKS = (1, 2, 6, 11, 51, 101, 501, 1001)  # where the bars of ranks begin
WIDTH, HEIGHT, TOP, BOTTOM = 272, 132, 24, 18  # of a picture, and of the margins in it


def of_ranks(ranks: np.ndarray) -> str:
    """How many tokens had which rank."""
    ends = [end - 1 for end in RANKS[1:]]
    labels = [str(a) if a == b else f"{a}-{b}" for a, b in zip(RANKS, ends, strict=False)]
    counts = np.histogram(ranks, [*RANKS, np.inf])[0]
    return histogram("Rank", [*labels, f"{RANKS[-1]} or more"], counts)


def of_entropies(entropies: np.ndarray) -> str:
    """How many predictions had which entropy."""
    highest = max(1, int(np.ceil(entropies.max(initial=0))))
    labels = [f"{k} to {k + 1}" for k in range(highest)]
    counts = np.histogram(entropies, range(highest + 1))[0]
    return histogram("Entropy of the prediction, in nats", labels, counts)


def of_probabilities(probabilities: np.ndarray) -> str:
    """How many predictions gave their likeliest token which probability."""
    labels = [f"{10 * k} to {10 * k + 10}%" for k in range(10)]
    # Rounding may have taken a probability past 1.
    counts = np.histogram(np.minimum(probabilities, 1), np.linspace(0, 1, 11))[0]
    return histogram("Probability of the likeliest token", labels, counts)


def histogram(name: str, labels: Sequence[str], counts: Sequence[int] | np.ndarray) -> str:
    """Bars for shares of a total. A screen reader reads the shares as a list."""
    shares = np.asarray(counts) / max(1, np.sum(counts))
    texts = [f"{label}: {share:.1%}" for label, share in zip(labels, shares, strict=True)]
    width, room = WIDTH / len(labels), HEIGHT - TOP - BOTTOM
    bars = "".join(
        f'<rect x="{k * width + 1:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" '
        f'width="{width - 2:.1f}" height="{height:.1f}"><title>{html.escape(text)}</title></rect>'
        for k, text in enumerate(texts)
        for height in [room * shares[k] / max(shares.max(), 1e-9)]
    )
    base = HEIGHT - BOTTOM
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(". ".join([name, *texts]))}">'
        f'<text class="name" x="0" y="12">{html.escape(name)}</text>'
        f'{bars}<line x1="0" x2="{WIDTH}" y1="{base}" y2="{base}"/>'
        f'<text x="0" y="{HEIGHT - 4}">{html.escape(labels[0])}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{html.escape(labels[-1])}</text>'
        "</svg>"
    )
