"""From a folder in the released format to one that Hugging Face's libraries load."""

from pathlib import Path

from gpt2.conversion.config import make_config
from gpt2.conversion.folder import new_folder, write_object
from gpt2.conversion.vocabulary import write_hugging_face
from gpt2.conversion.weights import PREFIX, WEIGHTS, import_safetensors, one_line, read_checkpoint
from gpt2.model_folder import ModelFolder
from gpt2.tensorflow_session import import_tensorflow
from gpt2.terminal import status_line


def convert(model: ModelFolder, target_folder: Path) -> None:
    """Write a folder that AutoModelForCausalLM and AutoTokenizer of transformers load.

    Memory is that of one copy of the weights.

    Args:
      model: what to convert.
      target_folder: appears when it is complete; must not exist.
    Raises: UserError if the model is not complete, or the target exists; OSError.
    """
    with new_folder(target_folder) as folder:
        safetensors = import_safetensors()
        hparams, weights, end = model.hparams, model.weights, model.end_of_text
        write_object(folder / "config.json", make_config(hparams, end))
        ends = {"bos_token_id": end, "eos_token_id": end}
        write_object(folder / "generation_config.json", ends)
        write_hugging_face(folder, model.encoder, hparams)
        with status_line(f"converting {model.name} ..."):
            tf = import_tensorflow()
            tensors = {
                PREFIX + name: value[0] if value.ndim == 3 else value
                for _, name, value in read_checkpoint(tf, weights, hparams)
            }
            try:
                safetensors.numpy.save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
            except safetensors.SafetensorError as error:  # a full disk, say
                reason = f"cannot be written: {one_line(error)}"
                raise OSError(None, reason, str(folder / WEIGHTS)) from None
        # The library makes the file readable to its owner alone.
        (folder / WEIGHTS).chmod((folder / "config.json").stat().st_mode)
