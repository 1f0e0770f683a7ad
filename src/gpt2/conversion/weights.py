"""The tensors of a model in Hugging Face's form: their names and shapes, and their files.

The layouts agree: a matrix is [n_in, n_out] in both. The checkpoint has one more axis in front of
it, of a convolution of width 1.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gpt2.conversion.folder import read_object, refuse_pointer
from hparams import HParams
from user_error import UserError

WEIGHTS = "model.safetensors"
PREFIX = "transformer."  # before a name, if the file is of the model with its output layer
WRAPPERS = re.compile(r"(_orig_mod\.|module\.|base_model\.model\.)+")  # of compile, DDP and peft
OUTPUT = "lm_head.weight"  # a copy of wte in some files
BUFFER = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # the causal mask, in older files
FLOATS = ("F32", "F16", "BF16")
BLOCK = 4096  # rows of wte compared at a time


def import_safetensors() -> Any:
    """The module safetensors. Raises: UserError, which says how to install it."""
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
    """For each tensor: its name in a checkpoint, its name in Hugging Face's form without PREFIX,
    and its shape there."""
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
            yield f"model/h{i}/{name}/w", f"{dotted}.weight", [n_in, n_out]
            yield f"model/h{i}/{name}/b", f"{dotted}.bias", [n_out]
    yield "model/ln_f/g", "ln_f.weight", [n]
    yield "model/ln_f/b", "ln_f.bias", [n]


def refuse_not_finite(place: Path, name: str, tensor: np.ndarray) -> None:
    """Raise UserError if a tensor is not finite, as a training that diverged may leave it."""
    if not np.isfinite(tensor).all():
        raise UserError(f"{place} holds {name} with values that are not finite")


def progress_bar(hparams: HParams) -> tqdm:
    """A bar of the bytes of float32 tensors on stderr, if that is a terminal."""
    size = 4 * hparams.n_params()
    return tqdm(desc="converting", total=size, unit="B", unit_scale=True, disable=None)


class Tensors:
    """The weights in a folder, read one by one; `with` closes the files.

    Raises: UserError if they are not here, damaged, or not those of a GPT-2 of this shape.
    """

    def __init__(self, folder: Path, hparams: HParams):
        self.folder = folder
        self._error = import_safetensors().SafetensorError
        self._files = ExitStack()
        self._held: dict[str, tuple[Path, Any, str]] = {}
        with ExitStack() as on_error:
            on_error.enter_context(self._files)
            for path in _find_files(folder):
                self._open(path)
            self._check(hparams)
            on_error.pop_all()

    def __enter__(self) -> "Tensors":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def read(self, name: str) -> np.ndarray:
        """A tensor as float32, which holds any float16 and bfloat16 exactly."""
        return self._rows(name, slice(None))

    def _open(self, path: Path) -> None:
        import ml_dtypes  # noqa: F401  # bfloat16 for NumPy; TensorFlow brings it
        import safetensors

        refuse_pointer(path)
        try:
            # Not mapped into memory: the pages that were read would stay until it is closed.
            opened = safetensors.safe_open(path, framework="np", backend="pread")
            file = self._files.enter_context(opened)
            names = file.keys()
        except (self._error, OSError) as error:
            raise self._damaged(path, error) from None
        for full_name in names:
            name = WRAPPERS.sub("", full_name).removeprefix(PREFIX)
            if BUFFER.fullmatch(name):
                continue
            if name in self._held:
                raise UserError(f"{self.folder} holds {name} twice")
            self._held[name] = path, file, full_name

    def _damaged(self, path: Path, error: Exception) -> UserError:
        return UserError(f"{path} is damaged, or not a safetensors file: {one_line(error)}")

    def _check(self, hparams: HParams) -> None:
        if "wte.weight" not in self._held and OUTPUT in self._held:  # one of two names of a tensor
            self._held["wte.weight"] = self._held.pop(OUTPUT)
        wanted = {OUTPUT}
        for _, name, shape in tensors_of(hparams):
            if name not in self._held:
                raise UserError(f"{self.folder} has no tensor {name}, which its config.json needs")
            self._check_tensor(name, shape)
            wanted.add(name)
        extra = sorted(self._held.keys() - wanted)
        if extra:
            raise UserError(f"{self.folder} holds a tensor {extra[0]!r}, which GPT-2 does not have")
        if OUTPUT in self._held:
            self._check_tied(hparams.n_vocab)

    def _check_tensor(self, name: str, shape: list[int]) -> None:
        path, file, full_name = self._held[name]
        tensor = file.get_slice(full_name)
        if tensor.get_shape() != shape:
            raise UserError(
                f"{path} holds {name} as {tensor.get_shape()}, not {shape} as in config.json"
            )
        if tensor.get_dtype() not in FLOATS:
            raise UserError(
                f"{path} holds {name} as {tensor.get_dtype()}; only {', '.join(FLOATS)} are read"
            )

    def _check_tied(self, n_vocab: int) -> None:
        """Raise UserError unless the output weights are those of the token embedding."""
        embedding, output = (
            self._held[name][1].get_slice(self._held[name][2]) for name in ("wte.weight", OUTPUT)
        )
        same = embedding.get_shape() == output.get_shape()
        for start in range(0, n_vocab if same else 0, BLOCK):
            rows = slice(start, min(start + BLOCK, n_vocab))
            same = same and np.array_equal(
                self._rows("wte.weight", rows), self._rows(OUTPUT, rows), equal_nan=True
            )
        if not same:
            raise UserError(
                f"{self.folder} has separate output weights ({OUTPUT}); GPT-2 uses wte for both"
            )

    def _rows(self, name: str, rows: slice) -> np.ndarray:
        path, file, full_name = self._held[name]
        try:
            return np.asarray(file.get_slice(full_name)[rows], np.float32)
        except (self._error, OSError) as error:
            raise self._damaged(path, error) from None


def _find_files(folder: Path) -> list[Path]:
    """The files of a folder's weights."""
    index = folder / f"{WEIGHTS}.index.json"
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if index.exists():
        shards = read_object(index).get("weight_map")
        names = list(shards.values()) if isinstance(shards, dict) else []
        for name in names:
            if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
                raise UserError(f"{index} names {name!r}, which is not a file of this folder")
        if names:
            return [folder / name for name in sorted(set(names))]
        raise UserError(f"{index} names no files in weight_map")
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
    """What a library says of an error."""
    return " ".join(str(error).split())
