"""From a folder in Hugging Face's format to one in the released format."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from encoder import END_OF_TEXT
from gpt2 import checkpoint
from gpt2.conversion.config import read_config
from gpt2.conversion.folder import new_folder, write_object
from gpt2.conversion.vocabulary import read_vocabulary, write_released
from gpt2.conversion.weights import load_tensors, tensors_of
from gpt2.model_folder import ModelFolder
from gpt2.tensorflow_session import import_tensorflow
from gpt2.terminal import log_once, status_line
from hparams import HParams
from user_error import UserError

log = logging.getLogger("gpt2")


def convert(source_folder: Path, target_folder: Path) -> None:
    """Write the released file set from config.json, model.safetensors and the vocabulary's files.

    Memory is that of one copy of the weights. What is not carried over is logged.

    Args:
      source_folder: what transformers' save_pretrained writes, or a clone of a model on the Hub.
      target_folder: appears when it is complete; must not exist.
    Raises: UserError if the source is not a complete GPT-2, or the target exists; OSError.
    """
    with new_folder(target_folder) as folder:
        hparams, config = read_config(source_folder)
        ids, merges = read_vocabulary(source_folder, hparams.n_vocab)
        with status_line(f"converting {source_folder.name} ..."):
            tensors = load_tensors(source_folder, hparams)
            write_object(folder / "hparams.json", hparams.values())
            write_released(folder, ids, merges)
            _check_vocabulary(source_folder, folder)
            _write_checkpoint(folder, tensors, hparams)
    end = config.get("eos_token_id")
    if end not in (None, ids[END_OF_TEXT]):
        log_once(f"texts end with {END_OF_TEXT} here, not with token {end!r}")


def _check_vocabulary(source: Path, folder: Path) -> None:
    """Raise UserError if the vocabulary that was written cannot be used."""
    log.disabled = True  # what is irregular is logged whenever the model is loaded
    try:
        _ = ModelFolder(folder).encoder
    except UserError as error:
        reason = str(error).partition(";")[0].replace(str(folder), str(source))
        raise UserError(f"the vocabulary cannot be used: {reason}") from None
    finally:
        log.disabled = False


def _write_checkpoint(folder: Path, tensors: dict[str, np.ndarray], hparams: HParams) -> None:
    """Write model.ckpt.* and `checkpoint`. Each tensor is removed from the dict, to save memory.

    Raises: OSError if the files cannot be written.
    """
    tf = import_tensorflow()
    import model

    cpu = tf.ConfigProto(device_count={"GPU": 0})
    with tf.Graph().as_default(), tf.Session(config=cpu) as session:
        model.model(hparams, tf.placeholder(tf.int32, [None, None]))
        variables: dict[str, Any] = {v.op.name: v for v in tf.global_variables()}
        for name, name_there, shape in tensors_of(hparams):
            value = tensors.pop(name_there).astype(np.float32, copy=False)
            variables[name].load(value.reshape(shape), session)
        with checkpoint.named_write_errors(folder / "model.ckpt"):
            saver = tf.train.Saver(save_relative_paths=True)
            saver.save(session, str(folder / "model.ckpt"), write_meta_graph=False)
            (folder / "model.ckpt.meta").write_bytes(checkpoint.meta_graph(hparams))
