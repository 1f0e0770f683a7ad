"""The tensors of a model in Hugging Face's format: their names and shapes, and their files.

The layouts agree: a matrix is [n_in, n_out] in both. In the checkpoint it has one more axis in
front, as it is a convolution of width 1.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpt2 import checkpoint
from gpt2.tensorflow_session import interrupted_afterwards
from gpt2.user_file import open_file
from hparams import HParams
from user_error import UserError

WEIGHTS = "model.safetensors"
PREFIX = "transformer."  # before the names of a model that has its output layer
WRAPPERS = re.compile(r"(_orig_mod\.|module\.|base_model\.model\.)+")  # of compile, DDP and peft
OUTPUT = "lm_head.weight"  # a copy of wte in some files
BUFFER = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # the causal mask, in older files
FLOATS = ("float32", "float16", "bfloat16")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # git's stand-in for a large file


def import_safetensors() -> Any:
    """The module safetensors. Raises: UserError, with how to install it."""
    try:
        import safetensors.numpy
    except ModuleNotFoundError:
        raise UserError("this needs a library; install it: pip install safetensors") from None
    return safetensors


def tensors_of(hparams: HParams) -> Iterator[tuple[str, str, list[int]]]:
    """Yield each tensor's name in a checkpoint, its name in Hugging Face's format without PREFIX,
    and its shape in the checkpoint. Hugging Face's format has no axis of 1.
    """
    n = hparams.n_embd
    yield "model/wte", "wte.weight", [hparams.n_vocab, n]
    yield "model/wpe", "wpe.weight", [hparams.n_ctx, n]
    linear = [("attn/c_attn", n, 3 * n), ("attn/c_proj", n, n)]
    linear += [("mlp/c_fc", n, 4 * n), ("mlp/c_proj", 4 * n, n)]
    for i in range(hparams.n_layer):
        for norm in ("ln_1", "ln_2"):
            yield f"model/h{i}/{norm}/g", f"h.{i}.{norm}.weight", [n]
            yield f"model/h{i}/{norm}/b", f"h.{i}.{norm}.bias", [n]
        for name, n_in, n_out in linear:
            dotted = f"h.{i}.{name.replace('/', '.')}"
            yield f"model/h{i}/{name}/w", f"{dotted}.weight", [1, n_in, n_out]
            yield f"model/h{i}/{name}/b", f"{dotted}.bias", [n_out]
    yield "model/ln_f/g", "ln_f.weight", [n]
    yield "model/ln_f/b", "ln_f.bias", [n]


def refuse_not_finite(place: Path, name: str, tensor: np.ndarray) -> None:
    """Raise UserError if a tensor is not finite, as a training that diverged may leave it."""
    if not np.isfinite(tensor).all():
        raise UserError(f"{place} holds {name} with values that are not finite")


def read_checkpoint(
    tf: Any, prefix: Path, hparams: HParams
) -> Iterator[tuple[str, str, np.ndarray]]:
    """The tensors of a checkpoint, one by one.

    Yields: a tensor's two names, as `tensors_of`, and its values in the checkpoint's shape.
    Raises: UserError if one is missing, damaged, not finite, or of another shape.
    """
    held = checkpoint.held_shapes(tf, prefix)
    reader = tf.train.load_checkpoint(str(prefix))
    for name, name_there, shape in tensors_of(hparams):
        checkpoint.check_shape(prefix, held, name, shape)
        try:
            with interrupted_afterwards():
                tensor = reader.get_tensor(name)[: shape[0]]  # without padding
        except (tf.errors.OpError, IndexError) as error:
            raise UserError(f"{prefix} is damaged: {one_line(error)}") from None
        refuse_not_finite(prefix, name, tensor)
        yield name, name_there, tensor


def load_tensors(folder: Path, hparams: HParams) -> dict[str, np.ndarray]:
    """The weights in a folder, by their names without PREFIX, in the types of the files.

    Raises: UserError if they are not there, damaged, or not those of a GPT-2 of this shape.
    """
    tensors: dict[str, np.ndarray] = {}
    for path in _find_files(folder):
        for full_name, tensor in _load_file(path).items():
            name = WRAPPERS.sub("", full_name).removeprefix(PREFIX)
            if name in tensors:
                raise UserError(f"{folder} holds {name} twice")
            if not BUFFER.fullmatch(name):
                tensors[name] = tensor
    if "wte.weight" not in tensors and OUTPUT in tensors:  # one of two names of a tensor
        tensors["wte.weight"] = tensors.pop(OUTPUT)
    output = tensors.pop(OUTPUT, None)
    wanted = set()
    for _, name, shape in tensors_of(hparams):
        if name not in tensors:
            raise UserError(f"{folder} has no tensor {name}, which its config.json needs")
        _check_tensor(folder, name, tensors[name], shape[-2:])
        wanted.add(name)
    if extra := sorted(tensors.keys() - wanted):
        raise UserError(f"{folder} holds a tensor {extra[0]!r}, which GPT-2 does not have")
    if output is not None and not np.array_equal(tensors["wte.weight"], output):
        raise UserError(f"{folder} has separate output weights ({OUTPUT}); GPT-2 uses wte")
    return tensors


def _load_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file. Raises: UserError if it cannot be read."""
    safetensors = import_safetensors()
    import ml_dtypes  # noqa: F401  # bfloat16 for NumPy; TensorFlow brings it

    try:
        with open_file(path) as file:
            is_pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
        if not is_pointer:
            tensors: dict[str, np.ndarray] = safetensors.numpy.load_file(path)
            return tensors
    except Exception as error:  # of several kinds, also for a type that NumPy does not have
        raise UserError(f"{path} cannot be read: {one_line(error)}") from None
    raise UserError(f"{path} is only a pointer to the file; fetch the file with: git lfs pull")


def _check_tensor(folder: Path, name: str, tensor: np.ndarray, shape: list[int]) -> None:
    """Raise UserError unless a tensor has this shape, is finite, and fits into float32."""
    found, dtype = list(tensor.shape), tensor.dtype.name
    if found != shape:
        raise UserError(f"{folder} holds {name} as {found}, not {shape} as in config.json")
    if dtype not in FLOATS:
        raise UserError(f"{folder} holds {name} as {dtype}; only {', '.join(FLOATS)} are read")
    refuse_not_finite(folder, name, tensor)


def _find_files(folder: Path) -> list[Path]:
    """The files of a folder's weights."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if shards := sorted(folder.glob("model-*-of-*.safetensors")):
        return shards
    if pickles := sorted(folder.glob("pytorch_model*.bin")):
        raise UserError(
            f"{pickles[0]} is a pickle, which can run any code when it is read, so it is not; if "
            f"you trust it, load it with transformers and save it again as {WEIGHTS}"
        )
    raise UserError(f"{folder} has no {WEIGHTS}")


def one_line(error: Exception) -> str:
    """The message of a library's error, in one line."""
    return " ".join(str(error).split())
