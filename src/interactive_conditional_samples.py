#!/usr/bin/env python3
"""Continue the texts that are typed at a prompt."""

import contextlib

from command_line import run
from sampler import Sampler, banner
from settings import UserError, require


def interact_model(
    model_name: str | None = None,
    seed: int | None = None,
    nsamples: int = 1,
    batch_size: int = 1,
    length: int | None = None,
    temperature: float = 1,
    top_k: int = 0,
    top_p: float = 1,
    models_dir: str = "models",
) -> None:
    """Continue the texts that are typed at a prompt. Ctrl-D or Ctrl-C at the prompt leaves.

    Args:
      model_name: model to use; 117M unless given, or 1M where that is not downloaded.
      seed: makes the samples repeatable; without it they differ from run to run.
      nsamples: how many samples to print for a prompt.
      batch_size: how many samples to make side by side; affects speed and memory only.
      length: tokens in a sample; half of the model's n_ctx unless given.
      temperature: randomness: 1 draws as the model predicts, below 1 likelier tokens more often,
        0 always takes the likeliest.
      top_k: draw among the k likeliest tokens; 0 is no such limit. 40 does well.
      top_p: draw among the likeliest tokens that together reach this probability; 1 is no limit.
      models_dir: folder that holds the models.
    """
    require("nsamples", nsamples, nsamples >= 1, "at least 1")
    sampler = Sampler(
        model_name=model_name,
        models_dir=models_dir,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        batch_size=batch_size,
        seed=seed,
        prompt_share=0.5,
    )
    while True:
        try:
            raw_text = input("Model prompt >>> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends the samples, not the session
            respond(sampler, raw_text, nsamples)


def respond(sampler: Sampler, raw_text: str, nsamples: int) -> None:
    """Print samples that continue a text, or why that can't be done."""
    if not raw_text:
        print("Prompt should not be empty!")
        return
    try:
        context = sampler.encoder.encode(raw_text)
        for number, text in enumerate(sampler.samples(context, nsamples), 1):
            print(banner(number))
            print(text, flush=True)
        print("=" * 80)
    except UserError as error:
        print(error)


if __name__ == "__main__":
    run(interact_model)
