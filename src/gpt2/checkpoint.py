"""Locating, checking and restoring models.

A model is a folder with the released file set: `hparams.json`, `encoder.json`, `vocab.bpe`,
`checkpoint`, and `model.ckpt.*`. All but `restore` work without TensorFlow.
"""

import functools
import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2 import tensor_index
from gpt2.background import Task
from gpt2.checkpoint_file import newest_weights
from gpt2.installation import download_command
from gpt2.tensorflow_session import interrupted_afterwards
from gpt2.terminal import escaped
from gpt2.user_file import expand, parse_json, read_text
from hparams import KEYS, HParams
from user_error import UserError

if TYPE_CHECKING:
    from encoder import Encoder

VOCABULARY = ("hparams.json", "encoder.json", "vocab.bpe")  # what a model has but its weights
DEFAULT_MODEL = "117M"  # the default model
EMBEDDED_MODEL = "1M"  # comes with the repository
log = logging.getLogger("gpt2")
ROOT = Path(__file__).resolve().parents[2]
MOST_PADDING = 1024  # rows without a token: other trainers round n_vocab up


def find_model(model_name: str, models_dir: str = "models") -> Path:
    """The folder of a model.

    Args:
      model_name: name of the folder.
      models_dir: folder that holds it; `~` and `$NAME` are expanded. A relative one is looked
        up in the working directory, then in the repository.
    Raises: UserError if there is no such folder.
    """
    check_name(model_name)
    models = expand(models_dir)
    for folder in (models / model_name, ROOT / models / model_name):
        if model_name and folder.is_dir():
            return folder
    raise UserError(f"no model in {models / model_name}; {_remedy(model_name)}")


def check_name(model_name: str) -> None:
    """Raise UserError for a name that means the folder of all models, or one above it."""
    if model_name.strip("./\\") == "":
        raise UserError(f"--model_name must be the name of a folder, got {model_name!r}")


def choose_model(model_name: str | None, models_dir: str) -> tuple[Path, str]:
    """The folder of the model with this name; by default, of the best one that is here.

    Returns: the folder, and a notice for the user if it is not DEFAULT_MODEL by default.
    Raises: UserError if there is no model of that name.
    """
    if model_name is not None:
        return find_model(model_name, models_dir), ""
    try:
        folder = find_model(DEFAULT_MODEL, models_dir)
        if is_complete(folder):
            return folder, ""
        again = download_command(DEFAULT_MODEL)
        reason = f"{folder} is only partly downloaded; run `{again}` again"
    except UserError as error:
        reason = str(error)
    return find_model(EMBEDDED_MODEL), f"using the small model {EMBEDDED_MODEL}: {reason}"


def is_complete(folder: Path) -> bool:
    """Whether the files of a model are in `folder`, and the weights in full length."""
    try:
        prefix = newest_weights(folder)
    except UserError:
        return False
    index = prefix.with_name(prefix.name + ".index")
    return all((folder / name).is_file() for name in VOCABULARY) and tensor_index.is_complete(index)


def load_hparams(folder: Path) -> HParams:
    """The shape of the model in `folder`. Raises: UserError if hparams.json is not in order."""
    path = folder / "hparams.json"
    try:
        values = parse_json(read_text(path))
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


def load_encoder(folder: Path, hparams: HParams) -> "Encoder":
    """The vocabulary of the model in `folder`; what is irregular in it is said on stderr, once.

    A vocabulary may have added tokens, which no text becomes, and the model rows without a token,
    up to MOST_PADDING. Raises: UserError if it is of another model.
    """
    from gpt2.encoder_files import learned_tokens, read_encoder

    encoder = read_encoder(folder)
    ids, n_vocab = encoder.encoder, hparams.n_vocab
    learned = learned_tokens(encoder)
    needed = 1 + max(ids[token] for token in learned & ids.keys())
    if n_vocab < needed or n_vocab - len(ids) > MOST_PADDING:
        raise UserError(
            f"{folder}: hparams.json says {n_vocab} tokens, encoder.json has {len(ids)}; the two "
            "are not of one model"
        )
    if added := sorted(ids.keys() - learned, key=ids.__getitem__):
        say_once(
            f"{folder}: irregular vocabulary: no merge makes {len(added)} of the tokens in "
            f"encoder.json, {added[0]!r} for one; text is never encoded as these"
        )
    elif not encoder.regular:
        say_once(f"{folder}: irregular vocabulary: text is encoded slowly")
    return encoder


@functools.cache
def say_once(line: str) -> None:
    """Log a line, which scripts print on stderr, unless this process has logged it before."""
    log.warning(escaped(line))


def find_weights(folder: Path, hparams: HParams) -> Path:
    """The prefix of the weights' file names, as `tf.train.Saver` takes it.

    Raises: UserError if a file is missing, or holds less than the model needs.
    """
    try:
        prefix = newest_weights(folder)
    except UserError as error:
        raise UserError(f"{error}; {_remedy(folder.name)}") from None
    index = prefix.with_name(prefix.name + ".index")
    if not index.is_file():
        raise UserError(f"{index} is missing; {_remedy(folder.name)}")
    try:
        sizes = tensor_index.data_files(index)
    except (OSError, ValueError) as error:
        raise UserError(f"{index} is damaged: {error}; {_remedy(folder.name)}") from None
    for path, size in sizes.items():
        if not path.is_file():
            raise UserError(f"{path} is missing; {_remedy(folder.name)}")
        if (found := path.stat().st_size) < size:
            raise UserError(f"{path} is cut short: {found} bytes of {size}; {_remedy(folder.name)}")
    size, needed = sum(sizes.values()), 4 * hparams.n_params()  # float32
    if size < needed:
        raise UserError(
            f"{folder / 'hparams.json'} is of another model: it needs {needed} bytes of weights, "
            f"and {prefix.name} has {size}"
        )
    return prefix


def _held_shapes(tf: Any, prefix: Path) -> dict[str, list[int]]:
    """The variables of a checkpoint. Raises: UserError if its index is damaged."""
    try:
        return tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
    except Exception as error:  # of many kinds, with several lines
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{prefix}.index is damaged: {reason}; {_remedy(prefix.parent.name)}"
        ) from None


def _check_shape(prefix: Path, held: dict[str, list[int]], name: str, shape: list[int]) -> None:
    """Raise UserError unless the weights hold a variable, which may be padded, in this shape."""
    found = held.get(name, [])
    if found != shape and not 0 < _padding(name, found, shape) <= MOST_PADDING:
        found_as = f"as {found}, not {shape}" if name in held else "not at all"
        raise UserError(f"{prefix} holds {name} {found_as}; hparams.json is of another model")


def _padding(name: str, found: list[int], shape: list[int]) -> int:
    """How many rows the token embedding has beyond n_vocab."""
    return found[0] - shape[0] if name == "model/wte" and found[1:] == shape[1:] else 0


def fingerprint(prefix: Path) -> str:
    """A short name for the weights: the index holds a checksum of each."""
    index = prefix.with_name(prefix.name + ".index").read_bytes()
    return hashlib.sha256(index).hexdigest()[:16]


def restore(
    session: Any,
    prefix: Path,
    variables: Sequence[Any] | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> None:
    """Read variables in one run: all of the session's graph, unless some are given.

    Args:
      meanwhile: is called while they are read, and may add to the graph; the session is then one
        of open_session.
    Raises: UserError if the files do not hold the variables in these shapes, or are damaged.
    """
    import tensorflow.compat.v1 as tf

    held = _held_shapes(tf, prefix)
    variables = variables or session.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
    names = [variable.op.name for variable in variables]
    parts = []  # all of a variable, or as many rows of it as there are in the graph
    for name, shape in zip(names, [v.shape.as_list() for v in variables], strict=True):
        _check_shape(prefix, held, name, shape)
        padded = held[name] != shape
        parts.append(" ".join([*map(str, held[name]), f"0,{shape[0]}:-"]) if padded else "")
    try:
        with session.graph.as_default(), interrupted_afterwards():
            values = tf.raw_ops.RestoreV2(
                prefix=str(prefix),
                tensor_names=names,
                shape_and_slices=parts,
                dtypes=[variable.dtype.base_dtype for variable in variables],
            )
            pairs = zip(variables, values, strict=True)
            assigned = [variable.assign(value, read_value=False) for variable, value in pairs]
        if meanwhile is None:
            session.run(assigned)
            return
        session.will_run(assigned)
        reading = Task(lambda: session.run(assigned))
        meanwhile()
        reading.wait()
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError):
        remedy = _remedy(prefix.parent.name)
        raise UserError(f"{prefix} is damaged: a checksum does not match; {remedy}") from None


def without_initializers(next_creator: Any, **options: Any) -> Any:
    """For tf.variable_creator_scope: what is restored or assigned needs nothing to begin with.

    Most of the time that creating one takes goes into its initial value.
    """
    try:
        from tensorflow.python.ops.resource_variable_ops import UninitializedVariable  # private
    except ImportError:
        return next_creator(**options)
    variable = UninitializedVariable(**options)
    if options["collections"] == []:  # it looks at no list of collections, and adds to one
        variable.graph.get_collection_ref("variables").pop()
    return variable


def meta_graph(hparams: HParams) -> bytes:
    """The model's graph for the file model.ckpt.meta, as TensorFlow 1.15 and later can read it."""
    import tensorflow.compat.v1 as tf

    import model

    with tf.Graph().as_default():
        model.model(hparams, tf.placeholder(tf.int32, [None, None]))
        meta = tf.train.Saver().export_meta_graph(clear_devices=True, strip_default_attrs=True)
    for node in meta.graph_def.node:
        node.attr.pop("debug_name", None)  # new in TensorFlow 2: 1.15 refuses what it does not know
    return meta.SerializeToString(deterministic=True)


def _remedy(model_name: str) -> str:
    released = re.fullmatch(r"(117|124|345|355|774|762|1558|1542)M", model_name)
    return f"download it with: {download_command(model_name if released else '117M')}"


def _remedy_for_run_of_fork(folder: Path) -> str:
    """What to do with weights alone, as nshepperd's code and gpt-2-simple save them; else ""."""
    if not any(folder.glob("model*.index")) or (folder / "hparams.json").exists():
        return ""
    missing = [name for name in VOCABULARY if not (folder / name).exists()]
    return (
        f"No such file, although there are weights; copy {', '.join(missing)} to {folder} from "
        "the model that the weights were fine-tuned from (117M, for example)"
    )
