#!/usr/bin/env python3
"""Convert models between the released format, Hugging Face's and SavedModel."""

import importlib
import signal
import sys
from pathlib import Path

from gpt2.command_line import run
from gpt2.installation import ROOT
from gpt2.model_folder import ModelFolder, check_name, find_model
from gpt2.user_file import expand


def convert_from(folder: str, /, model_name: str, models_dir: str | None = None) -> None:
    """Make a model folder of config.json, model.safetensors, and the tokenizer's files.

    Args:
      folder: what was downloaded from Hugging Face's Hub, or saved with save_pretrained.
      model_name: name of the new model.
      models_dir: folder to save it in; models/ of the repository by default.
    """
    check_name(model_name)
    target = (expand(models_dir) if models_dir else ROOT / "models") / model_name
    _run_conversion("from_hf", expand(folder), target)


def convert_to(model: str, folder: str, /, models_dir: str = "models") -> None:
    """Write a model as a folder that Hugging Face's transformers load.

    Args:
      model: name of the model.
      folder: new folder to write.
    """
    _run_conversion("to_hf", find_model(model, models_dir), expand(folder))


def convert_to_saved_model(model: str, folder: str, /, models_dir: str = "models") -> None:
    """Write a model as a SavedModel, for TensorFlow Serving and any program with TensorFlow.

    Args:
      model: name of the model.
      folder: new folder to write.
    """
    _run_conversion("to_saved_model", find_model(model, models_dir), expand(folder))


def _run_conversion(module: str, source: Path | ModelFolder, target: Path) -> None:
    conversion = importlib.import_module(f"gpt2.conversion.{module}")  # and NumPy, but not sooner
    conversion.convert(source, target)
    print(f"{target} is complete", file=sys.stderr)


COMMANDS = {
    "from-hf": convert_from,
    "to-hf": convert_to,
    "to-saved-model": convert_to_saved_model,
}

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a kill cleans up, too
    run(COMMANDS)
