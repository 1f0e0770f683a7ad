"""Dumps: many samples, which can be interrupted, resumed, and divided among machines."""

import hashlib
import itertools
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol, TextIO

from gpt2.file_lock import write_lock
from gpt2.language_model import LanguageModel
from gpt2.sample_text import read_stop_strings
from gpt2.sampling.batch import SampleBatch, StopConditions, ThisProcess, batches
from gpt2.sampling.prompts import NO_PROMPT, Prompt
from gpt2.sampling.sample_file import FORMATS, Output, Sample, Stream, read_record
from user_error import UserError, require

log = logging.getLogger("gpt2")


class Backend(Protocol):
    """What makes the samples of batches: this process, or workers elsewhere."""

    def start(self, lm: LanguageModel, ends: StopConditions, watched: bool = False) -> None:
        """Prepare to make samples as this model would; `watched` ones are shown as they grow."""

    def make(self, wanted: Iterable[SampleBatch]) -> Iterator[Iterable[list[Sample]]]:
        """For each batch, in this order, what batch.make_samples yields, or only the last of it."""

    def close(self) -> None:
        """Undo `start`."""


def dump(
    lm: LanguageModel,
    *,
    nsamples: int,
    output: str | TextIO,
    prompts: Sequence[Prompt] = NO_PROMPT,
    format: str = "text",
    shard: str = "1/1",
    stop_at_end: bool = False,
    stop: Sequence[str] = (),
    backend: Backend | None = None,
) -> None:
    """Make samples and write them, batch by batch.

    Sample i continues prompt (i - 1) % len(prompts): each prompt once, then each a second time.
    It depends on the seed and i only, not on its batch or on earlier samples, so a resumed dump
    makes the missing samples alone.

    Args:
      lm: its weights are loaded after everything else has been checked.
      nsamples: number of samples of each prompt; 0 means no limit.
      output: name of the file to write or continue; or a stream.
      prompts: as prompts.read_prompts returns them.
      format: "text" or "jsonl".
      shard: "i/n" makes the samples i, i + n, i + 2n, ... alone.
      stop_at_end: whether `<|endoftext|>` ends a sample.
      stop: texts before which a sample ends, as in --stop.
      backend: makes the samples; this process by default.
    Raises: UserError if one of these is wrong; OSError if the output can't be written.
    """
    require("nsamples", nsamples, nsamples >= 0, "0 (no limit) or above")
    require("format", format, format in FORMATS, f"one of {', '.join(FORMATS)}")
    number, step = parse_shard(shard)
    ends = StopConditions(stop_at_end, read_stop_strings(stop))
    check_output_name(output)
    with write_lock(Path(output)) if isinstance(output, str) else nullcontext():
        settings = ends.settings() | {"prompts": check_prompts(lm, prompts)}
        out = open_output(lm, output, format, settings, shard)
        first = number + out.done * step
        left = range(first, nsamples * len(prompts) + 1, step)
        indices = left if nsamples else itertools.count(first, step)
        watched = isinstance(out, Stream)
        if watched and left:
            lm.expect(len(left))
        wanted = batches(prompts, indices, lm.batch_size)
        backend = backend or ThisProcess()
        try:
            backend.start(lm, ends, watched)
            write(backend, wanted, out, len(left) * lm.sampling.length, lm)
        finally:
            out.close()
            backend.close()


def write(
    backend: Backend,
    wanted: Iterable[SampleBatch],
    out: Output | Stream,
    n_tokens_left: int,
    lm: LanguageModel,
) -> None:
    """Make batches, write each, and log the speed. A stream shows its samples as they grow.

    Args: n_tokens_left, the most tokens that may be generated; 0 means no limit.
    """
    from tqdm import tqdm

    begun, done_before, n_tokens = time.monotonic(), out.done, 0
    total = n_tokens_left or None
    # Samples on a terminal show how far the dump is. With None, only a terminal gets a bar.
    no_bar = True if isinstance(out, Stream) and out.stream.isatty() else None
    with tqdm(total=total, unit="token", unit_scale=True, leave=False, disable=no_bar) as bar:
        try:
            for growing in backend.make(wanted):
                n_made = 0
                for samples in growing:
                    n_before, n_made = n_made, sum(len(sample.tokens) for sample in samples)
                    bar.update(n_made - n_before)
                    if isinstance(out, Stream):
                        out.show(samples[0])
                out.write(samples)
                n_tokens += n_made
                if bar.total:  # which falls with each sample that ends early
                    bar.total -= len(samples) * lm.sampling.length - n_made
                bar.set_postfix(samples=out.done - done_before)
        finally:
            out.close()  # ends the line of an incomplete sample
            bar.close()
            seconds = time.monotonic() - begun
            made = f"{out.done - done_before} samples, {n_tokens} tokens"
            speed = f"{n_tokens / seconds:.0f} tokens/s"
            log.info("%s in %.1f s: %s; seed %s", made, seconds, speed, lm.seed)


def choose_backend(
    ray: str | None,
    workers: int | None,
    cpus_per_worker: int | None,
    gpus_per_worker: float | None,
) -> Backend:
    """This process, or the workers of a Ray cluster; see RayWorkers. Raises: UserError."""
    counts = {"workers": workers, "cpus_per_worker": cpus_per_worker}
    for name, value in {**counts, "gpus_per_worker": gpus_per_worker}.items():
        if value is not None and ray is None:
            raise UserError(f"--{name} needs --ray")
        least = 1 if name in counts else 0
        require(name, value, value is None or least <= value < 1 << 20, f"at least {least}")
    if ray is None:
        return ThisProcess()
    known = re.fullmatch(r"local|auto|(ray://)?(\[[^\]\s]+\]|[^:/\s]+):\d{1,5}", ray)
    require("ray", repr(ray), bool(known), "local, auto, HOST:PORT or ray://HOST:PORT")
    from gpt2.sampling.ray_workers import RayWorkers

    return RayWorkers(ray, workers, cpus_per_worker, gpus_per_worker)


def check_prompts(lm: LanguageModel, prompts: Sequence[Prompt]) -> str:
    """A hash of the token ids of all prompts. Raises: UserError with the place of a wrong one."""
    contexts = []
    for place, text in prompts:
        try:
            contexts.append(lm.context(text))
        except UserError as error:
            raise UserError(f"{place}: {error}" if place else str(error)) from None
    return hashlib.sha256(json.dumps(contexts).encode()).hexdigest()[:16]


def check_output_name(output: str | TextIO) -> None:
    """Raise UserError for a name that no file can have."""
    if not isinstance(output, str):
        return
    path = Path(output)
    if not path.name or path.is_dir():
        raise UserError(f"--output must be the name of a file, got {output!r}")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} to write {path.name} in")


def open_output(
    lm: LanguageModel,
    output: str | TextIO,
    format: str,
    settings: dict[str, Any],
    shard: str,
) -> Output | Stream:
    """Open the output of a dump. Without a seed, `lm` gets the one of the dump's earlier run.

    Args: settings, what the samples depend on besides the model.
    """
    kind = FORMATS[format]
    if not isinstance(output, str):
        return Stream(output, kind, lm.settings() | settings)
    path = Path(output)
    if not lm.seed_is_given and (record := read_record(path)):
        lm.change(seed=record["settings"]["seed"])
    return Output(path, kind, lm.settings() | settings, {"format": format, "shard": shard})


def parse_shard(shard: str) -> tuple[int, int]:
    """Read "2/8" as (2, 8). Raises: UserError unless it is i/n with i from 1 to n < 10**9."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"shard must be i/n, with i from 1 to n and n below 10**9, got {shard!r}")
    return int(found[1]), int(found[2])
