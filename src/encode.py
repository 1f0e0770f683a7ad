#!/usr/bin/env python3
"""Turn text into the token ids of a model, in a file that src/train.py takes as its dataset."""

import sys
from pathlib import Path

from gpt2 import checkpoint
from gpt2.command_line import choose_model, run
from gpt2.training.dataset import encode_files, find_files, write_tokens
from hparams import UserError


def encode(
    dataset: str, output: str, /, model_name: str | None = None, models_dir: str = "models"
) -> None:
    """Turn text into the token ids of a model, in a file that src/train.py takes as its dataset.

    Args:
      dataset: text file, a folder of them, or a pattern in quotes, like 'texts/*.txt'.
      output: file to write; its name ends in .npz.
      model_name: model whose vocabulary is used.
    """
    if not output.endswith(".npz"):
        raise UserError(f"the name of the output must end in .npz, got {output}")
    folder, notice = choose_model(model_name, models_dir)
    if notice:
        print(notice, file=sys.stderr)
    encoder = checkpoint.load_encoder(folder, checkpoint.load_hparams(folder))
    tokens = encode_files(find_files(dataset), encoder)
    write_tokens(Path(output), tokens, folder)
    print(f"{output}: {len(tokens)} tokens")


if __name__ == "__main__":
    run(encode)
