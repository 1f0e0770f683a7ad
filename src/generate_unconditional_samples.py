#!/usr/bin/env python3
"""Print samples that start from nothing."""

from command_line import run
from sampler import Sampler, banner
from settings import require


def sample_model(
    model_name: str | None = None,
    seed: int | None = None,
    nsamples: int = 0,
    batch_size: int = 1,
    length: int | None = None,
    temperature: float = 1,
    top_k: int = 0,
    top_p: float = 1,
    models_dir: str = "models",
) -> None:
    """Print samples that start from nothing: from <|endoftext|>, where a new text begins.

    Args:
      model_name: model to use; 117M unless given, or 1M where that is not downloaded.
      seed: makes the samples repeatable; without it they differ from run to run.
      nsamples: how many samples to print; 0 goes on until interrupted.
      batch_size: how many samples to make side by side; affects speed and memory only.
      length: tokens in a sample, n_ctx of the model at most, which is the default.
      temperature: randomness: 1 draws as the model predicts, below 1 likelier tokens more often,
        0 always takes the likeliest.
      top_k: draw among the k likeliest tokens; 0 is no such limit. 40 does well.
      top_p: draw among the likeliest tokens that together reach this probability; 1 is no limit.
      models_dir: folder that holds the models.
    """
    require("nsamples", nsamples, nsamples >= 0, "0 (for ever) or above")
    sampler = Sampler(
        model_name=model_name,
        models_dir=models_dir,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        batch_size=batch_size,
        seed=seed,
    )
    start = [sampler.encoder.encoder["<|endoftext|>"]]
    for number, text in enumerate(sampler.samples(start, nsamples), 1):
        print(banner(number))
        print(text, flush=True)


if __name__ == "__main__":
    run(sample_model)
