#!/usr/bin/env python3
"""Continue the texts of a file."""

import sys

from gpt2.command_line import run
from gpt2.language_model import LanguageModel
from gpt2.sampling.dump import choose_backend, dump
from gpt2.sampling.prompts import read_prompts


def continue_model(
    prompts: str,
    model_name: str | None = None,
    seed: int | None = None,
    nsamples: int = 1,
    batch_size: int | None = None,
    length: int | None = None,
    temperature: float = 1,
    top_k: int = 0,
    top_p: float = 1,
    models_dir: str = "models",
    separator: str = "\\n",
    output: str | None = None,
    format: str = "text",
    stop_at_end: bool = True,
    stop: tuple[str, ...] = (),
    shard: str = "1/1",
    device: str = "auto",
    dtype: str = "float32",
    ray: str | None = None,
    workers: int | None = None,
    cpus_per_worker: int | None = None,
    gpus_per_worker: float | None = None,
) -> None:
    r"""Continue the texts of a file.

    Args:
      prompts: file with the texts; - is standard input. In a .jsonl file each line is a
        JSON object with a `text`.
      separator: what separates the texts in other files; a line end by default. \n\n is a blank
        line.
      nsamples: number of samples of each text; each text is continued once before any is
        continued again. 0 means no limit: until Ctrl-C.
      length: number of tokens in a sample; half of the model's n_ctx by default.
    """
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
    dump(
        lm,
        nsamples=nsamples,
        prompts=read_prompts(prompts, separator),
        output=sys.stdout if output is None else output,
        format=format,
        stop_at_end=stop_at_end,
        stop=stop,
        shard=shard,
        backend=backend,
    )


if __name__ == "__main__":
    run(continue_model)
