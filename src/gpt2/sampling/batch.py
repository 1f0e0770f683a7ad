"""The batches of a dump, and making one.

This needs nothing but a model, so the same code runs in the process of the dump and on workers.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
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


def batches(prompts: Sequence[Prompt], indices: Iterable[int], size: int) -> Iterator[SampleBatch]:
    """Batches of the samples with these indices; sample i continues prompt (i - 1) % n."""
    rest = iter(indices)
    while chunk := list(itertools.islice(rest, size)):
        yield SampleBatch(chunk, [prompts[(i - 1) % len(prompts)][1] for i in chunk])


def make_samples(
    lm: LanguageModel, batch: SampleBatch, ends: StopConditions, at_once: bool = False
) -> Iterator[list[Sample]]:
    """Make the samples of a batch.

    Args: at_once, as in LanguageModel.stream_tokens.
    Yields: all samples of the batch as they grow; the last time, they are complete.
    """
    contexts = [lm.context(prompt) for prompt in batch.prompts]
    rows = [SampleText(lm.encoder, ends.stop) for _ in batch.sample_indices]
    for piece in lm.stream_tokens(contexts, batch.sample_indices, ends.stop_at_end, at_once):
        for row, ids in zip(rows, piece, strict=True):
            row.add(ids)
        yield _samples(lm, batch, rows)
        if all(row.stopped for row in rows):
            break
    for row in rows:
        row.add([], final=True)
    yield _samples(lm, batch, rows)


def _samples(lm: LanguageModel, batch: SampleBatch, rows: Sequence[SampleText]) -> list[Sample]:
    samples = []
    for number, prompt, row in zip(batch.sample_indices, batch.prompts, rows, strict=True):
        short = len(row.tokens) < lm.sampling.length
        ended = row.stopped or short or lm.end_of_text in row.tokens
        samples.append(Sample(number, prompt, row.tokens, row.text, ended))
    return samples


class ThisProcess:
    """Makes batches one after the other in the process that asks for them."""

    def start(self, lm: LanguageModel, ends: StopConditions, watched: bool = False) -> None:
        """Load the model, the slow step."""
        self._lm, self._ends, self._watched = lm, ends, watched
        lm.prepare(at_once=watched)

    def make(self, wanted: Iterable[SampleBatch]) -> Iterator[Iterator[list[Sample]]]:
        """For each batch, its samples as they grow."""
        for batch in wanted:
            yield make_samples(self._lm, batch, self._ends, self._watched)

    def close(self) -> None:
        """Leave the model loaded."""
