"""The sums over the tokens of a text, and the numbers that people compare."""

import dataclasses
import math

from gpt2.scorer import Scores
from gpt2.text_stream import Counts

BANDS = (10, 100, 1000)  # the highest rank of each band but the last
BAND_NAMES = ("rank 1 to 10", "rank 11 to 100", "rank 101 to 1000", "rank above 1000")


@dataclasses.dataclass
class Totals:
    """Sums over the tokens of a text. All fields can be written as JSON."""

    windows: int = 0
    tokens: int = 0
    nats: float = 0.0  # the negative log-probability of the text
    nats_squared: float = 0.0  # sum of the squares of the tokens' log-probabilities
    entropy: float = 0.0  # in nats
    entropy_squared: float = 0.0
    log_rank: float = 0.0
    log_rank_squared: float = 0.0
    bands: list[int] = dataclasses.field(default_factory=lambda: [0] * len(BAND_NAMES))

    def add(self, scores: Scores) -> None:
        """Add the scores of a window."""
        import numpy as np

        logprob, entropy = (x.astype(np.float64) for x in (scores.logprob, scores.entropy))
        log_rank = np.log(scores.rank)
        self.windows += 1
        self.tokens += len(logprob)
        self.nats -= float(logprob.sum())
        self.nats_squared += float(logprob @ logprob)
        self.entropy += float(entropy.sum())
        self.entropy_squared += float(entropy @ entropy)
        self.log_rank += float(log_rank.sum())
        self.log_rank_squared += float(log_rank @ log_rank)
        counts = np.bincount(np.searchsorted(BANDS, scores.rank), minlength=len(BAND_NAMES))
        self.bands = [a + int(b) for a, b in zip(self.bands, counts, strict=True)]

    def perplexity(self, units: int) -> float:
        """The perplexity per unit, of which the text has so many. Inf where it overflows."""
        try:
            return math.exp(self.nats / units) if units else math.nan
        except OverflowError:
            return math.inf

    def bits(self, units: int) -> float:
        """Bits per unit, of which the text has so many."""
        return self.nats / math.log(2) / units if units else math.nan

    def summary(self, counts: Counts) -> dict[str, float]:
        """All numbers by name; nan where the text has none of a unit.

        Those before the ranks, other than the number of tokens and perplexity per token, do not
        depend on how the text is tokenised.
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
            **self._moments("log-probability", -self.nats, self.nats_squared),
            **self._moments("entropy", self.entropy, self.entropy_squared),
            **self._moments("log-rank", self.log_rank, self.log_rank_squared),
        }

    def _moments(self, name: str, total: float, squares: float) -> dict[str, float]:
        mean = total / self.tokens if self.tokens else math.nan
        variance = squares / self.tokens - mean**2 if self.tokens else math.nan
        # Rounding may take it below 0. The comparison keeps nan.
        deviation = math.sqrt(variance if not variance < 0 else 0)
        return {f"mean {name}": mean, f"standard deviation of {name}": deviation}
