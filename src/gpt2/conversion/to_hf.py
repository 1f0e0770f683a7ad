"""From a folder in the released format to one that Hugging Face's libraries load."""

from pathlib import Path
from typing import Any

from gpt2.conversion.config import make_config
from gpt2.conversion.folder import new_folder, refuse_existing, write_object
from gpt2.conversion.vocabulary import write_hugging_face
from gpt2.conversion.weights import PREFIX, WEIGHTS, import_safetensors, one_line, read_checkpoint
from gpt2.model_folder import ModelFolder
from gpt2.tensorflow_session import import_tensorflow
from gpt2.terminal import status_line
from hparams import HParams


def convert(model: ModelFolder, target_folder: Path) -> None:
    """Write a folder that AutoModelForCausalLM and AutoTokenizer of transformers load.

    Memory is that of one copy of the weights.

    Args:
      model: what to convert.
      target_folder: appears when it is complete; must not exist.
    Raises: UserError if the model is not complete, or the target exists; OSError.
    """
    refuse_existing(target_folder)
    import_safetensors()
    hparams, weights = model.hparams, model.weights
    with status_line(f"loading {model.name} ..."):
        end = model.end_of_text
        tf = import_tensorflow()
    with new_folder(target_folder) as folder:
        write_object(folder / "config.json", make_config(hparams, end))
        ends = {"bos_token_id": end, "eos_token_id": end}
        write_object(folder / "generation_config.json", ends)
        write_hugging_face(folder, model.encoder, hparams, model.path)
        _write_weights(tf, folder / WEIGHTS, weights, hparams)
        # The library makes the file readable to its owner alone.
        (folder / WEIGHTS).chmod((folder / "config.json").stat().st_mode)


def _write_weights(tf: Any, path: Path, prefix: Path, hparams: HParams) -> None:
    safetensors = import_safetensors()
    tensors = {
        PREFIX + name: value[0] if value.ndim == 3 else value
        for _, name, value in read_checkpoint(tf, prefix, hparams)
    }
    try:
        safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
    except safetensors.SafetensorError as error:  # a full disk, say
        raise OSError(None, f"cannot be written: {one_line(error)}", str(path)) from None
