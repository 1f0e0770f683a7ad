"""Sums over the tokens of a text, and the metrics computed from them."""

import dataclasses
import math

from gpt2.scorer import Scores
from gpt2.text_stream import Counts

SUMMED = ("log-probability", "entropy", "log-rank")  # of each token; the logarithms are natural
BANDS = (10, 100, 1000)  # the highest rank of each band but the last
BAND_NAMES = ("rank 1 to 10", "rank 11 to 100", "rank 101 to 1000", "rank above 1000")


@dataclasses.dataclass
class Totals:
    """Sums over the tokens of a text. JSON can hold all fields."""

    windows: int = 0
    tokens: int = 0
    sums: list[float] = dataclasses.field(default_factory=lambda: [0.0] * len(SUMMED))
    squares: list[float] = dataclasses.field(default_factory=lambda: [0.0] * len(SUMMED))
    bands: list[int] = dataclasses.field(default_factory=lambda: [0] * len(BAND_NAMES))

    def add(self, scores: Scores) -> None:
        """Add the scores of a window."""
        import numpy as np

        columns = [scores.logprob, scores.entropy, np.log(scores.rank)]
        for i, column in enumerate(column.astype(np.float64) for column in columns):
            self.sums[i] += float(column.sum())
            self.squares[i] += float(column @ column)
        self.windows += 1
        self.tokens += len(scores.rank)
        counts = np.bincount(np.searchsorted(BANDS, scores.rank), minlength=len(BAND_NAMES))
        self.bands = [a + int(b) for a, b in zip(self.bands, counts, strict=True)]

    @property
    def nats(self) -> float:
        """The negative log-probability of the text."""
        return -self.sums[0]

    def perplexity(self, units: int) -> float:
        """The perplexity per unit, given the number of units. Inf if it overflows."""
        try:
            return math.exp(self.nats / units) if units else math.nan
        except OverflowError:
            return math.inf

    def bits(self, units: int) -> float:
        """Bits per unit, given the number of units."""
        return self.nats / math.log(2) / units if units else math.nan

    def summary(self, counts: Counts) -> dict[str, float]:
        """All metrics by name; nan if the text has none of a metric's units.

        The counts and the metrics per word, byte and character do not depend on the tokenizer.
        """
        return {
            "tokens": self.tokens,
            "words": counts.words,
            "characters": counts.characters,
            "bytes": counts.bytes,
            "perplexity per token": self.perplexity(self.tokens),
            "perplexity per word": self.perplexity(counts.words),
            "bits per byte": self.bits(counts.bytes),
            "bits per character": self.bits(counts.characters),
            **dict(zip(BAND_NAMES, self.bands, strict=True)),
            **self._moments(),
        }

    def _moments(self) -> dict[str, float]:
        """The mean and standard deviation of all that is summed."""
        moments = {}
        for name, total, squares in zip(SUMMED, self.sums, self.squares, strict=True):
            mean = total / self.tokens if self.tokens else math.nan
            variance = squares / self.tokens - mean**2 if self.tokens else math.nan
            moments[f"mean {name}"] = mean
            # Rounding can make the variance negative. This comparison keeps nan.
            moments[f"standard deviation of {name}"] = math.sqrt(0 if variance < 0 else variance)
        return moments
