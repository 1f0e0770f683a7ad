"""Many samples, batch by batch, in a dump that can be stopped, gone on with, and shared out."""

import hashlib
import itertools
import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gpt2.language_model import LanguageModel
from gpt2.sampling.sample_file import FORMATS, Output, Sample, Terminal, read_record
from gpt2.sampling.sample_text import SampleText, read_stop_strings
from hparams import UserError, require

log = logging.getLogger("gpt2")


def dump(
    sampler: LanguageModel,
    *,
    last: int,
    prompts: Sequence[str | None] = (None,),
    places: Sequence[str] = (),
    output: str | None = None,
    format: str = "text",
    shard: str = "1/1",
    stop_at_end: bool = False,
    stop: Sequence[str] = (),
) -> None:
    """Make samples and write them, batch by batch.

    Sample number i continues prompt number (i - 1) % len(prompts): all prompts once, then all of
    them again. It depends on the seed and i, and neither on the batch it is made in nor on
    what was made before; so what a dump lacks after an interruption can be made alone.

    Args:
      sampler: is loaded only after everything else was found in order.
      last: number of the last sample; 0 means no limit.
      prompts: None starts from `<|endoftext|>`.
      places: where each prompt comes from, for an error about it.
      output: file to write, or to go on with; None is standard output.
      format: "text" or "jsonl".
      shard: "i/n" makes the samples i, i + n, i + 2n, ... alone.
      stop_at_end: whether `<|endoftext|>` ends a sample.
      stop: texts before which a sample ends, as --stop gives them.
    Raises: UserError if one of these is wrong; OSError if the output can't be written.
    """
    require("nsamples", last, last >= 0, "0 (no limit) or above")
    require("format", format, format in FORMATS, f"one of {', '.join(FORMATS)}")
    first, step = parse_shard(shard)
    stop_strings = read_stop_strings(stop)
    contexts = encode_prompts(sampler, prompts, places)
    ends = {"stop_at_end": stop_at_end, "stop": list(stop_strings) or None}
    out = open_output(sampler, output, format, contexts, ends, shard)
    numbers = itertools.count(first + out.done * step, step)
    wanted: Iterator[int] = itertools.takewhile(last.__ge__, numbers) if last else numbers
    sampler.load()

    begun, done_before, n_tokens = time.monotonic(), out.done, 0
    total = len(range(first + out.done * step, last + 1, step)) * sampler.sampling.length
    with tqdm(total=total or None, unit="token", unit_scale=True, leave=False, disable=None) as bar:
        try:
            while batch := list(itertools.islice(wanted, sampler.batch_size)):
                samples = make_batch(
                    sampler, batch, prompts, contexts, stop_at_end, stop_strings, bar
                )
                with tqdm.external_write_mode():  # no bar before a sample in the same terminal
                    out.write(samples)
                n_tokens += sum(len(sample.tokens) for sample in samples)
                bar.set_postfix(samples=out.done - done_before)
        finally:
            bar.close()
            out.close()
            seconds = time.monotonic() - begun
            made = f"{out.done - done_before} samples, {n_tokens} tokens"
            speed = f"{n_tokens / seconds:.0f} tokens/s"
            log.info("%s in %.1f s: %s; seed %s", made, seconds, speed, sampler.seed)


def encode_prompts(
    sampler: LanguageModel, prompts: Sequence[str | None], places: Sequence[str]
) -> list[list[int]]:
    """Token ids of each prompt. Raises: UserError that says where the first wrong one is."""
    contexts = []
    for i, prompt in enumerate(prompts):
        try:
            contexts.append(sampler.context(prompt))
        except UserError as error:
            place = f"{places[i]}: " if places else ""
            raise UserError(f"{place}{error}") from None
    return contexts


def make_batch(
    sampler: LanguageModel,
    numbers: Sequence[int],
    prompts: Sequence[str | None],
    contexts: Sequence[list[int]],
    stop_at_end: bool,
    stop_strings: Sequence[str],
    bar: tqdm,
) -> list[Sample]:
    """The samples of these numbers. The bar counts their tokens, and expects no more of them."""
    before = bar.n
    chosen = [(number - 1) % len(prompts) for number in numbers]
    rows = [SampleText(sampler.encoder, stop_strings) for _ in numbers]
    for piece in sampler.pieces([contexts[i] for i in chosen], numbers, stop_at_end):
        for row, ids in zip(rows, piece, strict=True):
            row.add(ids)
        n_made = sum(len(row.tokens) for row in rows)
        bar.update(before + n_made - bar.n)
        if all(row.stopped for row in rows):
            break
    if bar.total:
        bar.total -= len(rows) * sampler.sampling.length - n_made
    samples = []
    for number, i, row in zip(numbers, chosen, rows, strict=True):
        row.add([], final=True)
        short = len(row.tokens) < sampler.sampling.length
        ended = row.stopped or short or sampler.end_of_text in row.tokens
        samples.append(Sample(number, prompts[i], row.tokens, row.text, ended))
    return samples


def open_output(
    sampler: LanguageModel,
    output: str | None,
    format: str,
    contexts: list[list[int]],
    ends: dict[str, Any],
    shard: str,
) -> Output | Terminal:
    """The output of a dump, with the seed of an earlier run where none is given."""
    path = Path(output) if output is not None else None
    if path and (not path.name or path.is_dir()):
        raise UserError(f"--output must be the name of a file, got {output!r}")
    if sampler.seed is None and path and (record := read_record(path)):
        sampler.change(seed=record["settings"]["seed"])
    prompts = hashlib.sha256(json.dumps(contexts).encode()).hexdigest()[:16]
    settings = sampler.settings() | ends | {"prompts": prompts}
    kind, layout = FORMATS[format], {"format": format, "shard": shard}
    return Output(path, kind, settings, layout) if path else Terminal(kind, settings)


def parse_shard(shard: str) -> tuple[int, int]:
    """Read "2/8" as (2, 8). Raises: UserError unless it is i/n with i from 1 to n < 10**9."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"shard must be i/n, with i from 1 to n and n below 10**9, got {shard!r}")
    return int(found[1]), int(found[2])
