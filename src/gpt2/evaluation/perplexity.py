"""How well a model predicts a long text, in the units that people compare."""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from gpt2.atomic_file import replacing
from gpt2.evaluation.scorer import Scorer, Scores, sliding_windows
from gpt2.text_stream import Counts, safe_pieces
from hparams import UserError, parse_json
from user_file import read_text


@dataclasses.dataclass
class Totals:
    """Sums over the tokens of a text."""

    windows: int = 0
    tokens: int = 0
    nats: float = 0.0  # the negative log-probability of the text

    def add(self, scores: Scores) -> None:
        """Add the scores of a window."""
        self.windows += 1
        self.tokens += len(scores.logprob)
        self.nats -= float(scores.logprob.sum(dtype="float64"))

    def perplexity(self, units: int) -> float:
        """The perplexity of a unit, of which the text has so many. Inf where it overflows."""
        try:
            return math.exp(self.nats / units)
        except OverflowError:
            return math.inf

    def bits(self, units: int) -> float:
        """Bits for a unit, of which the text has so many."""
        return self.nats / math.log(2) / units

    def summary(self, counts: Counts) -> dict[str, float]:
        """The numbers that do not depend on how a text is tokenised, and perplexity per token."""
        return {
            "tokens": self.tokens,
            "words": counts.words,
            "characters": counts.characters,
            "bytes": counts.bytes,
            "perplexity per token": self.perplexity(self.tokens),
            "perplexity per word": self.perplexity(max(counts.words, 1)),
            "bits per byte": self.bits(counts.bytes),
            "bits per character": self.bits(counts.characters),
        }


class SavedState:
    """What a long run has done so far, in a small JSON file that is replaced as a whole.

    Args:
      path: the file; None keeps nothing.
      run: what makes up the run, by name. A file that was left by another run is refused.
    Raises: UserError
    """

    def __init__(self, path: str | None, run: dict[str, Any]):
        self.path = path and Path(path)
        self.content: dict[str, Any] = {"run": run, "done": {}}
        if self.path and not self.path.absolute().parent.is_dir():
            raise UserError(f"{path}: no such folder")
        if not self.path or not self.path.exists():
            return
        try:
            found = parse_json(read_text(self.path))
            if not isinstance(found["done"], dict):
                raise TypeError
            differing = [name for name in run if found["run"].get(name) != run[name]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{path} is no state of an evaluation; delete it, or name another"
            ) from None
        if differing:
            name = differing[0]
            raise UserError(
                f"{path} is of a run with another {name} ({found['run'].get(name)}, now "
                f"{run[name]}); repeat that run's flags, or name another file"
            )
        self.content = found

    def get(self, key: str) -> Any:
        """What was put under a key, or None."""
        return self.content["done"].get(key)

    def put(self, key: str, value: Any) -> None:
        """Remember a value that JSON can hold."""
        self.content["done"][key] = value
        if self.path:
            with replacing(self.path) as file:
                file.write(json.dumps(self.content).encode())


def encode(scorer: Scorer, chunks: Iterable[str]) -> Iterator[int]:
    """The token ids of a text that comes in chunks."""
    return chain.from_iterable(map(scorer.encoder.encode, safe_pieces(chunks)))


def measure(
    chunks: Iterable[str],
    scorer: Scorer,
    window: int,
    stride: int,
    state: SavedState,
    key: str = "totals",
) -> Totals:
    """Predict every token of a text once, the first one from `<|endoftext|>`.

    Args:
      chunks: the text.
      window, stride: as in sliding_windows.
      state, key: where the sums are kept; windows that they hold are not computed again.
    Raises: UserError if the text is empty.
    """
    totals = Totals(**(state.get(key) or {}))
    windows = sliding_windows(encode(scorer, chunks), scorer.end_of_text, window, stride)
    for _, scores in scorer(islice(windows, totals.windows, None)):
        totals.add(scores)
        state.put(key, dataclasses.asdict(totals))
    if not totals.tokens:
        raise UserError("the text is empty")
    return totals
