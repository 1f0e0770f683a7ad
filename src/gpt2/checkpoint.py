"""Where models lie on disk, and what can be wrong with them.

A model is a folder with the released file set: `hparams.json`, `encoder.json`, `vocab.bpe`,
`checkpoint`, and `model.ckpt.*`. All but `restore` work without TensorFlow.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encoder import Encoder, get_encoder
from gpt2.download import tensor_index
from hparams import KEYS, HParams, UserError, parse_json

VOCABULARY = ("hparams.json", "encoder.json", "vocab.bpe")  # what a model has but its weights
ROOT = Path(__file__).resolve().parents[2]
# n_embd and n_layer, which give the size of the weights.
RELEASED_SHAPES = [("117M", 768, 12), ("345M", 1024, 24), ("762M", 1280, 36), ("1542M", 1600, 48)]


def find_model(model_name: str, models_dir: str = "models") -> Path:
    """The folder of a model.

    Args:
      model_name: name of the folder.
      models_dir: folder that holds it; `~` and `$NAME` are expanded. A relative one is looked
        for from the working directory, then from the repository.
    Raises: UserError if there is no such folder.
    """
    if model_name.strip("./\\") == "":
        raise UserError(f"--model_name must be the name of a folder, got {model_name!r}")
    models = Path(os.path.expandvars(models_dir)).expanduser()
    for folder in (models / model_name, ROOT / models / model_name):
        if model_name and folder.is_dir():
            return folder
    raise UserError(f"no model in {models / model_name}; {_remedy(model_name)}")


def is_complete(folder: Path) -> bool:
    """Whether the files of a model are in `folder`, and the weights in full length."""
    try:
        prefix = _newest_prefix(folder)
    except UserError:
        return False
    index = prefix.with_name(prefix.name + ".index")
    return all((folder / name).is_file() for name in VOCABULARY) and tensor_index.is_complete(index)


def load_hparams(folder: Path) -> HParams:
    """The shape of the model in `folder`. Raises: UserError if hparams.json is not in order."""
    path = folder / "hparams.json"
    try:
        values = parse_json(path.read_text(encoding="utf-8-sig"))
        if not isinstance(values, dict):
            raise UserError(f"expected an object with {', '.join(KEYS)}")
        missing = [key for key in KEYS if key not in values]
        if missing:
            raise UserError(f"{missing[0]} is missing")
        return HParams().override_from_dict(values)
    except OSError as error:
        remedy = _remedy_for_run_of_fork(folder) or f"{error.strerror}; {_remedy(folder.name)}"
        raise UserError(f"{path}: {remedy}") from None
    except ValueError as error:  # UserError, broken JSON and broken UTF-8 among them
        raise UserError(f"{path}: {error}; {_remedy(folder.name)}") from None


def load_encoder(folder: Path, hparams: HParams) -> Encoder:
    """The vocabulary of the model in `folder`. Raises: UserError if it is of another size."""
    encoder = get_encoder(folder.name, str(folder.parent))
    if len(encoder.encoder) != hparams.n_vocab:
        raise UserError(
            f"{folder}: hparams.json says {hparams.n_vocab} tokens, encoder.json has "
            f"{len(encoder.encoder)}; the two are not of one model"
        )
    return encoder


def find_weights(folder: Path, hparams: HParams) -> Path:
    """The prefix of the weights' file names, as `tf.train.Saver` takes it.

    Raises: UserError if a file is missing, or holds less than the model needs.
    """
    prefix = _newest_prefix(folder)
    index = prefix.with_name(prefix.name + ".index")
    data = sorted(folder.glob(f"{prefix.name}.data-*-of-*"))
    if not index.is_file():
        raise UserError(f"{index} is missing; {_remedy(folder.name)}")
    if not data:
        raise UserError(f"{prefix}.data-00000-of-00001 is missing; {_remedy(folder.name)}")
    size = sum(path.stat().st_size for path in data)
    needed = 4 * hparams.n_params()  # float32
    if size < needed:
        raise UserError(f"{data[0]} is cut short: {size} bytes of {needed}; {_remedy(folder.name)}")
    return prefix


def fingerprint(prefix: Path) -> str:
    """A short name for the weights: the index holds a checksum of each."""
    index = prefix.with_name(prefix.name + ".index").read_bytes()
    return hashlib.sha256(index).hexdigest()[:16]


def restore(session: Any, prefix: Path, variables: Sequence[Any] | None = None) -> None:
    """Read variables in one run: all of the session's graph, unless some are given.

    Raises: UserError if the files do not hold the variables in these shapes, or are damaged.
    """
    import tensorflow.compat.v1 as tf

    try:
        held = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
        variables = variables or session.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
        for variable in variables:
            # The saver itself lets a wrong shape pass.
            name, shape = variable.op.name, variable.shape.as_list()
            if held.get(name) != shape:
                found = f"as {held[name]}, not {shape}" if name in held else "not at all"
                raise UserError(f"{prefix} holds {name} {found}; hparams.json is of another model")
        with session.graph.as_default():
            tf.train.Saver(variables).restore(session, str(prefix))
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError):
        remedy = _remedy(prefix.parent.name)
        raise UserError(f"{prefix} is damaged: a checksum does not match; {remedy}") from None


def _newest_prefix(folder: Path) -> Path:
    """What the file `checkpoint` calls the newest weights; it is a text-format protocol buffer."""
    path = folder / "checkpoint"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} is missing or no text; {_remedy(folder.name)}") from None
    found = re.search(r'^model_checkpoint_path: "(.+)"$', text, re.MULTILINE)
    if not found:
        raise UserError(f"{path} names no model_checkpoint_path; {_remedy(folder.name)}")
    # A folder may have been moved since it was written: only the name counts.
    return folder / Path(found[1]).name


def _remedy(model_name: str) -> str:
    released = re.fullmatch(r"(117|124|345|355|774|762|1558|1542)M", model_name)
    return f"download it with: python3 download_model.py {model_name if released else '117M'}"


def _remedy_for_run_of_fork(folder: Path) -> str:
    """What to do with weights alone, as nshepperd's code and gpt-2-simple save them; else ""."""
    if not any(folder.glob("model*.index")) or (folder / "hparams.json").exists():
        return ""
    missing = [name for name in VOCABULARY if not (folder / name).exists()]
    sizes = {path.stat().st_size for path in folder.glob("model*.data-*-of-*")}
    models = [
        name
        for name, width, n_layer in RELEASED_SHAPES
        if 4 * HParams(n_embd=width, n_layer=n_layer).n_params() in sizes
    ]
    origin = f"{models[0]}, judging by its size" if models else "117M, for example"
    return (
        f"No such file, although there are weights; copy {', '.join(missing)} to {folder} from "
        f"the model that the weights were fine-tuned from ({origin})"
    )
