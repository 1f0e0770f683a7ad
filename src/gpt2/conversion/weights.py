"""The tensors of a model in Hugging Face's format: their names and shapes, and their files.

The layouts agree: a matrix is [n_in, n_out] in both. In the checkpoint it has one more axis in
front, as it is a convolution of width 1.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gpt2 import checkpoint
from gpt2.conversion.folder import read_object, refuse_pointer
from gpt2.tensorflow_session import interrupted_afterwards
from hparams import HParams
from user_error import UserError

WEIGHTS = "model.safetensors"
PREFIX = "transformer."  # before the names of a model that has its output layer
WRAPPERS = re.compile(r"(_orig_mod\.|module\.|base_model\.model\.)+")  # of compile, DDP and peft
OUTPUT = "lm_head.weight"  # a copy of wte in some files
BUFFER = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # the causal mask, in older files
FLOATS = ("F32", "F16", "BF16")


def import_safetensors() -> Any:
    """The module safetensors. Raises: UserError, with how to install it."""
    try:
        import safetensors
        import safetensors.numpy

        version = tuple(map(int, safetensors.__version__.split(".")[:2]))
    except ModuleNotFoundError:
        version = (0, 0)
    if version < (0, 8):
        raise UserError(
            'this needs the safetensors library; install it: pip install "safetensors>=0.8"'
        )
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


def progress_bar(hparams: HParams) -> tqdm:
    """A bar on stderr that counts the bytes of float32 tensors; none if that is no terminal."""
    size = 4 * hparams.n_params()
    return tqdm(desc="converting", total=size, unit="B", unit_scale=True, disable=None)


def read_checkpoint(
    tf: Any, prefix: Path, hparams: HParams
) -> Iterator[tuple[str, str, np.ndarray]]:
    """The tensors of a checkpoint, one by one, while a bar shows the progress.

    Yields: a tensor's two names, as `tensors_of`, and its values in the checkpoint's shape.
    Raises: UserError if one is missing, damaged, not finite, or of another shape.
    """
    held = checkpoint.held_shapes(tf, prefix)
    reader = tf.train.load_checkpoint(str(prefix))
    with progress_bar(hparams) as bar:
        for name, name_there, shape in tensors_of(hparams):
            checkpoint.check_shape(prefix, held, name, shape)
            try:
                with interrupted_afterwards():
                    tensor = reader.get_tensor(name)[: shape[0]]  # without padding
            except (tf.errors.OpError, IndexError) as error:
                raise UserError(f"{prefix} is damaged: {one_line(error)}") from None
            refuse_not_finite(prefix, name, tensor)
            bar.update(tensor.nbytes)
            yield name, name_there, tensor


class Tensor:
    """A tensor in a safetensors file, which is read when it is asked for.

    Args: path, of the file; name, without PREFIX; content, what safetensors' get_slice returns.
    """

    def __init__(self, path: Path, name: str, content: Any):
        self.path, self.name, self._content = path, name, content

    def check(self, shape: list[int]) -> None:
        """Raise UserError unless it has this shape, and a type that is read."""
        found, dtype = self._content.get_shape(), self._content.get_dtype()
        if found != shape:
            raise UserError(
                f"{self.path} holds {self.name} as {found}, not {shape} as in config.json"
            )
        if dtype not in FLOATS:
            types = ", ".join(FLOATS)
            raise UserError(f"{self.path} holds {self.name} as {dtype}; only {types} are read")

    def read(self) -> np.ndarray:
        """Its values as float32, which holds any float16 and bfloat16 exactly."""
        with _named_damage(self.path):
            values = np.asarray(self._content[:], np.float32)
        refuse_not_finite(self.path, self.name, values)
        return values


@contextmanager
def open_tensors(folder: Path, hparams: HParams) -> Iterator[dict[str, Tensor]]:
    """The weights in a folder, by their names without PREFIX; `with` closes the files.

    Raises: UserError if they are not here, damaged, or not those of a GPT-2 of this shape.
    """
    import_safetensors()
    import ml_dtypes  # noqa: F401  # bfloat16 for NumPy; TensorFlow brings it
    import safetensors

    with ExitStack() as files:
        tensors: dict[str, Tensor] = {}
        for path in _find_files(folder):
            refuse_pointer(path)
            with _named_damage(path):
                # Not mapped into memory: the pages that were read would stay until it is closed.
                opened = safetensors.safe_open(path, framework="np", backend="pread")
                file = files.enter_context(opened)
                slices = [(name, file.get_slice(name)) for name in list(file.keys())]
            for full_name, content in slices:
                name = WRAPPERS.sub("", full_name).removeprefix(PREFIX)
                if name in tensors:
                    raise UserError(f"{folder} holds {name} twice")
                if not BUFFER.fullmatch(name):
                    tensors[name] = Tensor(path, name, content)
        _check(folder, tensors, hparams)
        yield tensors


def _check(folder: Path, tensors: dict[str, Tensor], hparams: HParams) -> None:
    """Raise UserError unless these are the weights of a GPT-2 of this shape."""
    if "wte.weight" not in tensors and OUTPUT in tensors:  # one of two names of a tensor
        tensors["wte.weight"] = tensors.pop(OUTPUT)
    wanted = {OUTPUT}
    for _, name, shape in tensors_of(hparams):
        if name not in tensors:
            raise UserError(f"{folder} has no tensor {name}, which its config.json needs")
        tensors[name].check(shape[-2:])
        wanted.add(name)
    if extra := sorted(tensors.keys() - wanted):
        raise UserError(f"{folder} holds a tensor {extra[0]!r}, which GPT-2 does not have")
    if OUTPUT in tensors:
        embedding, output = tensors["wte.weight"].read(), tensors[OUTPUT].read()
        if not np.array_equal(embedding, output):
            raise UserError(f"{folder} has separate output weights ({OUTPUT}); GPT-2 uses wte")


@contextmanager
def _named_damage(path: Path) -> Iterator[None]:
    """Turn the errors of a file that cannot be read into a UserError."""
    try:
        yield
    except (import_safetensors().SafetensorError, OSError) as error:
        what = "is damaged, or not a safetensors file"
        raise UserError(f"{path} {what}: {one_line(error)}") from None


def _find_files(folder: Path) -> list[Path]:
    """The files of a folder's weights."""
    index = folder / f"{WEIGHTS}.index.json"
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if index.exists():
        shards = read_object(index).get("weight_map")
        names = sorted({*map(str, shards.values())}) if isinstance(shards, dict) else []
        if not names or not all(re.fullmatch(r"[\w-][\w.-]*\.safetensors", n) for n in names):
            raise UserError(f"{index} does not name files of this folder in weight_map")
        return [folder / name for name in names]
    variants = [path for path in folder.glob("model.*.safetensors") if path.name.count(".") == 2]
    if len(variants) == 1:  # such as model.fp16.safetensors
        return variants
    pickles = sorted(folder.glob("pytorch_model*.bin"))
    if pickles:
        raise UserError(
            f"{pickles[0]} is a pickle, which can run any code when it is read, so it is not; if "
            f"you trust it, load it with transformers and save it again as {WEIGHTS}"
        )
    raise UserError(f"{folder} has no {WEIGHTS}")


def one_line(error: Exception) -> str:
    """The message of a library's error, in one line."""
    return " ".join(str(error).split())
