"""Restoring the variables of a model, and making the graph for model.ckpt.meta."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gpt2 import background
from gpt2.model_folder import MOST_PADDING, remedy
from gpt2.tensorflow_session import interrupted_afterwards
from hparams import HParams
from user_error import UserError


def restore(
    session: Any,
    prefix: Path,
    variables: Sequence[Any] | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> None:
    """Read variables in one run: all of the session's graph, or those that are given.

    Args:
      meanwhile: called while they are read. It may add to the graph, if the session is one of
        open_session.
    Raises: UserError if the files do not hold the variables in these shapes, or are damaged.
    """
    import tensorflow.compat.v1 as tf

    import narrow_weights

    held = held_shapes(tf, prefix)
    variables = variables or session.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
    slices = {}  # for each variable, the rows that the graph has; "" means all
    for name, shape in ((v.op.name, v.shape.as_list()) for v in variables):
        check_shape(prefix, held, name, shape)
        padded = held[name] != shape
        slices[name] = " ".join([*map(str, held[name]), f"0,{shape[0]}:-"]) if padded else ""

    def read(variables: Sequence[Any], dtypes: list[Any]) -> Any:
        names = [variable.op.name for variable in variables]
        return tf.raw_ops.RestoreV2(
            prefix=str(prefix),
            tensor_names=names,
            shape_and_slices=[slices[name] for name in names],
            dtypes=dtypes,
        )

    try:
        with session.graph.as_default(), interrupted_afterwards():
            wide = [v for v in variables if v.dtype.base_dtype != tf.bfloat16]
            narrow = [v for v in variables if v.dtype.base_dtype == tf.bfloat16]
            pairs = zip(wide, read(wide, [v.dtype.base_dtype for v in wide]), strict=True)
            first = [variable.assign(value, read_value=False) for variable, value in pairs]
            assigned = first[:]
            for variable in narrow:  # no more than two are in memory as float32
                with tf.control_dependencies([*first, *assigned[-2:-1]]):
                    (value,) = read([variable], [tf.float32])
                    assigned += narrow_weights.store(variable, value)
        if meanwhile is None:
            session.run(assigned)
            return
        session.extend()
        reading = background.start(lambda: session.run(assigned))
        meanwhile()
        reading.result()
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError):
        advice = remedy(prefix.parent.name)
        raise UserError(f"{prefix} is damaged: a checksum does not match; {advice}") from None


def held_shapes(tf: Any, prefix: Path) -> dict[str, list[int]]:
    """The variables of a checkpoint. Raises: UserError if its index is damaged."""
    try:
        return tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
    except Exception as error:  # of many kinds, with several lines
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{prefix}.index is damaged: {reason}; {remedy(prefix.parent.name)}"
        ) from None


def check_shape(prefix: Path, held: dict[str, list[int]], name: str, shape: list[int]) -> None:
    """Raise UserError unless the weights hold a variable in this shape; wte may have more rows."""
    found = held.get(name, [])
    may_be_padded = name == "model/wte" and found[1:] == shape[1:]
    if found != shape and not (may_be_padded and 0 < found[0] - shape[0] <= MOST_PADDING):
        what = (
            f"holds {name} as {found}, not {shape}" if name in held else f"has no variable {name}"
        )
        raise UserError(f"{prefix} {what}; hparams.json belongs to another model")


@contextlib.contextmanager
def named_write_errors(path: Path) -> Iterator[None]:
    """Turn errors from writing a file into an OSError of one line that names the file.

    Ctrl-C waits for the end of the block.
    """
    import tensorflow.compat.v1 as tf

    try:
        with interrupted_afterwards():
            yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    except tf.errors.OpError as error:  # a line "FILE; REASON", which may stand before a node
        reason = error.message.partition("\n\t [[")[0].splitlines()[-1].rpartition("; ")[2]
        raise OSError(None, f"cannot be written: {reason}", str(path)) from None


def without_initializers(next_creator: Any, **options: Any) -> Any:
    """Create a variable without an initial value, for tf.variable_creator_scope.

    Most of the time for creating a variable goes into its initial value, and one that is restored
    or assigned needs none.
    """
    try:
        from tensorflow.python.ops.resource_variable_ops import UninitializedVariable  # private
    except ImportError:
        return next_creator(**options)
    variable = UninitializedVariable(**options)
    if options["collections"] == []:  # it ignores the list, and adds to this one
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
