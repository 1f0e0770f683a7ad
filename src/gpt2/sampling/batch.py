"""The batches of a dump, and making one.

This needs nothing but a model, so the same code runs in the process of the dump and on workers.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gpt2.language_model import LanguageModel
from gpt2.sample_text import SampleText
from gpt2.sampling.prompts import Prompt
from gpt2.sampling.sample_file import Sample


@dataclass(frozen=True)
class StopConditions:
    """What ends a sample before it has its full length."""

    stop_at_end: bool = False  # `<|endoftext|>`
    stop: Sequence[str] = ()  # the sample ends before the first of these texts

    def settings(self) -> dict[str, Any]:
        """These, as a dump records them."""
        return asdict(self) | {"stop": list(self.stop) or None}


@dataclass(frozen=True)
class SampleBatch:
    """The samples to generate in one batch."""

    sample_indices: Sequence[int]
    prompts: Sequence[str | None]  # one for each; None starts from `<|endoftext|>`


def batches(
    prompts: Iterable[Prompt], n_prompts: int, first: int, step: int, last: int, size: int
) -> Iterator[SampleBatch]:
    """Samples first, first + step, ... up to `last`, in batches of a size; 0 means no last one.

    Sample i continues prompt (i - 1) % n_prompts. The prompts are read as often as needed.
    """
    indices = range(first, last + 1, step) if last else itertools.count(first, step)
    texts = (text for _ in itertools.count() for _, text in prompts)
    # The prompts repeat, so a large step skips as much as its rest.
    start, skip = (first - 1) % n_prompts, (step - 1) % n_prompts + 1
    pairs = zip(indices, itertools.islice(texts, start, None, skip), strict=False)
    while chunk := list(itertools.islice(pairs, size)):
        yield SampleBatch(*zip(*chunk, strict=True))


Show = Callable[[int, "str | None", str], object]  # gets a sample's number, prompt and text so far


def make_samples(
    lm: LanguageModel,
    batch: SampleBatch,
    ends: StopConditions,
    on_tokens: Callable[[int], object],
    show: Show | None = None,
) -> list[Sample]:
    """Make the samples of a batch.

    Args:
      on_tokens: called with the number of new tokens, which is negative if a stop string removes
        some. The sum of all calls is the number of tokens in the samples.
      show: called as the first sample grows.
    """
    contexts = [lm.context(prompt) for prompt in batch.prompts]
    rows = [SampleText(lm.encoder, ends.stop) for _ in batch.sample_indices]
    n_counted = 0
    for piece in lm.stream_tokens(
        contexts, batch.sample_indices, ends.stop_at_end, at_once=show is not None
    ):
        for row, ids in zip(rows, piece, strict=True):
            row.add(ids)
        if show is not None:
            show(batch.sample_indices[0], batch.prompts[0], rows[0].text)
        n_made = sum(len(row.tokens) for row in rows)
        on_tokens(n_made - n_counted)
        n_counted = n_made
        if all(row.stopped for row in rows):
            break
    samples = [
        _sample(lm, number, prompt, row)
        for number, prompt, row in zip(batch.sample_indices, batch.prompts, rows, strict=True)
    ]
    on_tokens(sum(len(sample.tokens) for sample in samples) - n_counted)
    return samples


def _sample(lm: LanguageModel, number: int, prompt: str | None, row: SampleText) -> Sample:
    row.add([], final=True)
    short = len(row.tokens) < lm.sampling.length
    ended = row.stopped or short or lm.end_of_text in row.tokens
    return Sample(number, prompt, row.tokens, row.text, ended)


class ThisProcess:
    """Makes batches one after the other in the process that asks for them."""

    def start(self, lm: LanguageModel, ends: StopConditions, watched: bool = False) -> None:
        """Load the model, the slow step."""
        self._lm, self._ends = lm, ends
        lm.prepare(at_once=watched)

    def make(
        self,
        wanted: Iterable[SampleBatch],
        on_tokens: Callable[[int], object],
        show: Show | None = None,
    ) -> Iterator[list[Sample]]:
        """The samples of each batch in turn; on_tokens and show as in make_samples."""
        for batch in wanted:
            yield make_samples(self._lm, batch, self._ends, on_tokens, show)

    def close(self) -> None:
        """Leave the model loaded."""
