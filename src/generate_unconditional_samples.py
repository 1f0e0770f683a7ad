#!/usr/bin/env python3
"""Generate samples without a prompt."""

import sys

from gpt2.command_line import run
from gpt2.language_model import LanguageModel
from gpt2.sampling.dump import choose_backend, dump


def sample_model(
    model_name: str | None = None,
    seed: int | None = None,
    nsamples: int = 0,
    batch_size: int | None = None,
    length: int | None = None,
    temperature: float = 1,
    top_k: int = 0,
    top_p: float = 1,
    models_dir: str = "models",
    output: str | None = None,
    format: str = "text",
    stop_at_end: bool = False,
    stop: tuple[str, ...] = (),
    shard: str = "1/1",
    device: str = "auto",
    dtype: str = "float32",
    ray: str | None = None,
    workers: int | None = None,
    cpus_per_worker: int | None = None,
    gpus_per_worker: float | None = None,
) -> None:
    """Generate samples without a prompt: each starts after <|endoftext|>, where texts begin."""
    backend = choose_backend(ray, workers, cpus_per_worker, gpus_per_worker)
    lm = LanguageModel(
        model_name=model_name,
        models_dir=models_dir,
        seed=seed,
        batch_size=batch_size,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        device=device,
        dtype=dtype,
    )
    if length is None:
        lm.change(length=lm.hparams.n_ctx)
    dump(
        lm,
        nsamples=nsamples,
        output=sys.stdout if output is None else output,
        format=format,
        stop_at_end=stop_at_end,
        stop=stop,
        shard=shard,
        backend=backend,
    )


if __name__ == "__main__":
    run(sample_model)
