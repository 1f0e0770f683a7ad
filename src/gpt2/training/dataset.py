"""Texts as token ids: encoded once, cached as .npz, and cut into windows."""

import glob
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from encoder import Encoder
from gpt2.atomic_file import replacing
from gpt2.model_folder import ModelFolder
from gpt2.text_stream import fingerprint, lines, safe_pieces, text_chunks, text_record
from gpt2.user_file import expand, open_file
from user_error import UserError


def load_tokens(dataset: str, model: ModelFolder, cache_dir: Path) -> np.ndarray:
    """The token ids of a dataset, from the cache if it was encoded before.

    Args:
      dataset: a text file, a folder, a pattern like texts/*.txt, or an .npz of token ids.
      model: gives the vocabulary.
      cache_dir: where encoded text is kept, under a hash of the text and the vocabulary.
    Returns: uint16 or int32 [tokens], with `<|endoftext|>` between two texts.
    Raises: UserError if there is no text, or if a file is not text.
    """
    if dataset.endswith(".npz"):
        return read_tokens(Path(dataset), model.hparams.n_vocab)
    files = find_files(dataset)
    hashed = [model.path / "encoder.json", model.path / "vocab.bpe", *files]
    key = hashlib.sha256(" ".join(map(fingerprint, hashed)).encode()).hexdigest()
    cached = cache_dir / f"{key[:16]}.npz"
    if cached.exists():
        return read_tokens(cached, model.hparams.n_vocab)
    tokens = encode_files(files, model.encoder)
    cache_dir.mkdir(parents=True, exist_ok=True)
    with replacing(cached, f".{os.getpid()}.new") as file:  # several workers may write it
        np.savez(file, tokens)
    return tokens


def find_files(dataset: str) -> list[Path]:
    """The files that a path, a folder (with its subfolders) or a pattern names, sorted.

    Hidden files and folders are left out. Raises: UserError if there are no files.
    """
    if not dataset.strip("/"):  # such as "$FOLDER/" with an unset variable: the whole disk
        raise UserError(f"the dataset must be a file, a folder or a pattern, got {dataset!r}")
    path = str(expand(dataset))
    # Not pathlib, which raises an error for an odd name instead of finding nothing.
    pattern = glob.escape(path) if os.path.exists(path) else path  # noqa: PTH110
    pattern += "/**" if os.path.isdir(path) else ""  # noqa: PTH112
    found = map(Path, glob.glob(pattern, recursive=True))  # noqa: PTH207
    files = sorted(file for file in found if file.is_file())
    if not files:
        raise UserError(f"the dataset {dataset!r}: no such file, and no files that match")
    return files


def encode_files(files: list[Path], encoder: Encoder) -> np.ndarray:
    """Encode text files, with a progress bar in bytes if stderr is a terminal.

    Returns: uint16 [tokens], or int32 if the vocabulary is larger.
    Raises: UserError if a file is not text, or if all files are empty.
    """
    from tqdm import tqdm

    dtype = np.uint16 if len(encoder.encoder) <= 1 << 16 else np.int32
    end = np.array([encoder.end_of_text], dtype)
    parts: list[np.ndarray] = []
    size = sum(file.stat().st_size for file in files)
    with tqdm(total=size, unit="B", unit_scale=True, desc="encoding", disable=None) as bar:
        for file in files:
            for text in _texts(file, bar.update):
                before = len(parts)
                for piece in safe_pieces(text):
                    if "\0" in piece:
                        raise UserError(f"{file} is not a text file: it contains NUL bytes")
                    parts.append(np.array(encoder.encode(piece, allow_special=True), dtype))
                if 0 < before < len(parts):
                    parts.insert(before, end)
    if not parts:
        raise UserError(f"{files[0]} is empty")
    return np.concatenate(parts)


def _texts(file: Path, on_read: Callable[[int], object]) -> Iterator[Iterable[str]]:
    """The texts of a file, each in chunks: the `text` of each line of .jsonl, or the whole file.

    Raises: UserError, now or while the chunks are read, if the file is not text.
    """
    chunks = text_chunks(str(file), on_read=on_read)
    if file.suffix != ".jsonl":
        yield chunks
        return
    for number, line in enumerate(lines(chunks), 1):
        if line.strip():
            yield [text_record(f"{file}, line {number}", line)["text"]]


def read_tokens(path: Path, n_vocab: int) -> np.ndarray:
    """All arrays of an .npz, one after the other: uint16 or int32 [tokens].

    Raises: UserError if the file does not hold token ids.
    """
    dtype = np.uint16 if n_vocab <= 1 << 16 else np.int32
    try:
        with open_file(path) as file, np.load(file, allow_pickle=False) as archive:
            arrays = [np.array([], dtype), *archive.values()]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except Exception:  # an archive can be damaged in many ways
        raise UserError(f"{path} is not an .npz of token ids") from None
    for array in arrays:
        if array.dtype.kind not in "iu" or ((array < 0) | (array >= n_vocab)).any():
            raise UserError(f"{path} has numbers that are not ids from 0 to {n_vocab - 1}")
    return np.concatenate([array.ravel().astype(dtype) for array in arrays])


def hold_out(tokens: np.ndarray, held_out: float, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The tokens to train on, and the share `held_out` at the end that is for validation.

    Raises: UserError if one of them is shorter than a window and the token after it.
    """
    cut = round(len(tokens) * (1 - held_out))
    training, validation = tokens[:cut], tokens[cut:]
    if min(len(training), len(validation) if held_out else math.inf) <= window:
        raise UserError(
            f"the dataset is too short: {len(training)} tokens to train on and {len(validation)} "
            f"held out, but a window needs {window + 1}; give more text, a smaller --window, or "
            "--held_out 0 to train without validation"
        )
    return training, validation


def random_windows(tokens: np.ndarray, window: int, n: int, seed: list[int]) -> np.ndarray:
    """`n` windows at random places, each with the token after it: int32 [n, window + 1]."""
    starts = np.random.default_rng(seed).integers(0, len(tokens) - window, [n, 1])
    return tokens[starts + np.arange(window + 1)].astype(np.int32)


def neighbouring_windows(tokens: np.ndarray, window: int, most: int) -> np.ndarray:
    """Consecutive windows, each with the token after it: int32 [at most `most`, window + 1].

    If the tokens have more windows than that, the ones returned are spread evenly.
    """
    n = max(len(tokens) - 1, 0) // window
    starts = window * np.linspace(0, n, min(n, most), endpoint=False).astype(int)[:, None]
    return tokens[starts + np.arange(window + 1)].astype(np.int32)
