"""Dumps: many samples, which can be interrupted, resumed, and divided among machines."""

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol, TextIO

from gpt2.file_lock import write_lock
from gpt2.language_model import LanguageModel
from gpt2.sample_text import read_stop_strings
from gpt2.sampling.batch import SampleBatch, Show, StopConditions, ThisProcess, batches
from gpt2.sampling.prompts import NO_PROMPT, Prompt
from gpt2.sampling.sample_file import FORMATS, Output, Sample, Stream, read_record
from user_error import UserError, require

log = logging.getLogger("gpt2")


class Backend(Protocol):
    """What makes the samples of batches: this process, or workers elsewhere."""

    def start(self, lm: LanguageModel, ends: StopConditions, watched: bool = False) -> None:
        """Prepare to make samples as this model would; `watched` ones are shown as they grow."""

    def make(
        self,
        wanted: Iterable[SampleBatch],
        on_tokens: Callable[[int], object],
        show: Show | None = None,
    ) -> Iterator[list[Sample]]:
        """The samples of each batch, in this order; on_tokens, show as in batch.make_samples."""

    def close(self) -> None:
        """Undo `start`."""


def dump(
    lm: LanguageModel,
    *,
    nsamples: int,
    output: str | TextIO,
    prompts: Iterable[Prompt] = NO_PROMPT,
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
      prompts: are read once to check them, and again while samples are made.
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
        n_prompts, fingerprint = check_prompts(lm, prompts)
        settings = ends.settings() | {"prompts": fingerprint}
        out = open_output(lm, output, format, settings, shard)
        first, last = number + out.done * step, nsamples * n_prompts
        n_left = len(range(first, last + 1, step))
        watched = isinstance(out, Stream)
        if watched and n_left:
            lm.expect(n_left)
        wanted = batches(prompts, n_prompts, first, step, last, lm.batch_size)
        backend = backend or ThisProcess()
        try:
            backend.start(lm, ends, watched)
            write(backend, wanted, out, n_left * lm.sampling.length, lm)
            if isinstance(out, Output):
                out.check()
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
    with tqdm(total=total, unit="token", unit_scale=True, leave=False, disable=None) as bar:
        on_tokens, show = (bar.update, None) if isinstance(out, Output) else watch(out, bar)
        try:
            for samples in backend.make(wanted, on_tokens, show):
                with tqdm.external_write_mode():  # no bar before a sample in the same terminal
                    out.write(samples)
                n_made = sum(len(sample.tokens) for sample in samples)
                n_tokens += n_made
                if bar.total:  # which falls with each sample that ends early
                    bar.total -= len(samples) * lm.sampling.length - n_made
                bar.set_postfix(samples=out.done - done_before)
        finally:
            if isinstance(out, Stream):
                out.close()  # before the bar, which starts its line again
            bar.close()
            seconds = time.monotonic() - begun
            made = f"{out.done - done_before} samples, {n_tokens} tokens"
            speed = f"{n_tokens / seconds:.0f} tokens/s"
            log.info("%s in %.1f s: %s; seed %s", made, seconds, speed, lm.seed)


def watch(out: Stream, bar: Any) -> tuple[Callable[[int], object], Show]:
    """How to count new tokens and show new text, without a bar on the line of the text."""
    if not out.stream.isatty():
        return bar.update, out.show

    def count(n_tokens: int) -> None:
        bar.n += n_tokens  # drawn after the batch

    def show(number: int, prompt: str | None, text: str) -> None:
        if not out.shown:
            bar.clear()
        out.show(number, prompt, text)

    return count, show


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


def check_prompts(lm: LanguageModel, prompts: Iterable[Prompt]) -> tuple[int, str]:
    """Read all prompts once. Returns: their number, and a hash of their token ids.

    Raises: UserError with the place of a wrong one, or if there is none.
    """
    digest, n_prompts = hashlib.sha256(b"["), 0
    for place, text in prompts:
        try:
            ids = lm.context(text)
        except UserError as error:
            raise UserError(f"{place}: {error}" if place else str(error)) from None
        digest.update((", " if n_prompts else "").encode() + json.dumps(ids).encode())
        n_prompts += 1
    if not n_prompts:
        raise UserError(f"{getattr(prompts, 'name', 'prompts')} holds no text to continue")
    digest.update(b"]")
    return n_prompts, digest.hexdigest()[:16]


def check_output_name(output: str | TextIO) -> None:
    """Raise UserError for a name that no file can have, before all prompts are read."""
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
