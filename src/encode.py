#!/usr/bin/env python3
"""Turn text into the token ids of a model, in a file that src/train.py takes as its dataset."""

import sys
from pathlib import Path

from gpt2.command_line import run
from gpt2.model_folder import choose_model
from gpt2.terminal import status_line
from user_error import UserError


def encode(
    dataset: str, output: str, /, model_name: str | None = None, models_dir: str = "models"
) -> None:
    """Turn text into the token ids of a model, in a file that src/train.py takes as its dataset.

    Args:
      dataset: text file, a folder of them, or a pattern in quotes, like 'texts/*.txt'.
      output: file to write; its name ends in .npz.
      model_name: model whose vocabulary is used.
    """
    model, notice = choose_model(model_name, models_dir)
    with status_line(f"loading {model.name} ..."):
        from gpt2.training.dataset import encode_files, find_files, write_tokens  # with NumPy

        files = find_files(dataset)
        check_output(Path(output))
        encoder = model.encoder
    if notice:
        print(notice, file=sys.stderr)
    tokens = encode_files(files, encoder)
    write_tokens(Path(output), tokens, model)
    print(f"{output}: {len(tokens)} tokens")


def check_output(path: Path) -> None:
    """Raise UserError if token ids cannot be written to `path`, or if it is another file."""
    from gpt2.training.dataset import is_ours

    if path.suffix != ".npz":
        raise UserError(f"the name of OUTPUT must end in .npz, got {str(path)!r}")
    if not path.parent.is_dir():
        raise UserError(f"no folder {path.parent} to write {path.name} in")
    if path.exists() and not is_ours(path):
        raise UserError(f"{path} exists and was not made by encode.py; choose another OUTPUT")


if __name__ == "__main__":
    run(encode)
