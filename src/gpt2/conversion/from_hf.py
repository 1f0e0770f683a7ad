"""From a folder in Hugging Face's format to one in the released format."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encoder import END_OF_TEXT
from gpt2 import checkpoint
from gpt2.conversion.config import read_config
from gpt2.conversion.folder import new_folder, refuse_existing, write_object
from gpt2.conversion.vocabulary import keep_settings, read_vocabulary, write_released
from gpt2.conversion.weights import open_tensors, progress_bar, tensors_of
from gpt2.model_folder import ModelFolder
from gpt2.tensorflow_session import import_tensorflow
from gpt2.terminal import log_once, status_line
from hparams import HParams
from user_error import UserError

log = logging.getLogger("gpt2")


def convert(source_folder: Path, target_folder: Path) -> None:
    """Write the released file set from config.json, model.safetensors and the vocabulary's files.

    Memory is that of one copy of the weights. What is not carried over is reported on stderr,
    where a bar shows the progress if it is a terminal.

    Args:
      source_folder: what transformers' save_pretrained writes, or a clone of a model on the Hub.
      target_folder: appears when it is complete; must not exist.
    Raises: UserError if the source is not a complete GPT-2, or the target exists; OSError.
    """
    refuse_existing(target_folder)
    if not source_folder.is_dir():
        raise UserError(f"{source_folder} is not a folder")
    with status_line(f"loading {source_folder.name} ..."):
        hparams, config = read_config(source_folder)
        ids, merges, left_out = read_vocabulary(source_folder, hparams.n_vocab)
    with open_tensors(source_folder, hparams) as tensors, new_folder(target_folder) as folder:
        write_object(folder / "hparams.json", hparams.values())
        write_released(folder, ids, merges)
        keep_settings(source_folder, folder)
        _check_vocabulary(source_folder, folder)
        _write_checkpoint(folder, tensors, hparams)
    if left_out:
        log_once(f"left out, as the model has no row for them: {' '.join(left_out)}")
    end = config.get("eos_token_id")
    ends = end if isinstance(end, list) else [end]
    if not {None, ids[END_OF_TEXT]} & {*ends}:
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


def _write_checkpoint(folder: Path, tensors: Mapping[str, Any], hparams: HParams) -> None:
    """Write model.ckpt.* and `checkpoint`. Raises: OSError if they cannot be written."""
    with status_line("starting TensorFlow ..."):
        tf = import_tensorflow()
    import model

    cpu = tf.ConfigProto(device_count={"GPU": 0})
    with progress_bar(hparams) as bar, tf.Graph().as_default(), tf.Session(config=cpu) as session:
        model.model(hparams, tf.placeholder(tf.int32, [None, None]))
        variables: dict[str, Any] = {v.op.name: v for v in tf.global_variables()}
        for name, name_there, shape in tensors_of(hparams):
            value = tensors[name_there].read()
            variables[name].load(value.reshape(shape), session)
            bar.update(value.nbytes)
        with checkpoint.named_write_errors(folder / "model.ckpt"):
            saver = tf.train.Saver(save_relative_paths=True)
            saver.save(session, str(folder / "model.ckpt"), write_meta_graph=False)
            (folder / "model.ckpt.meta").write_bytes(checkpoint.meta_graph(hparams))
