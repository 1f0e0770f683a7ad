"""Texts as token ids: encoded once, kept as .npz, and cut into windows."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt2.atomic_file import replacing
from gpt2.model_folder import ModelFolder
from gpt2.text_stream import fingerprint, lines, safe_pieces, text_chunks, text_record
from gpt2.user_file import open_file
from user_error import UserError

if TYPE_CHECKING:
    from encoder import Encoder

MARK = b"token ids of the GPT-2 vocabulary "  # begins the comment of our archives


def load_tokens(dataset: str, model: ModelFolder, cache_dir: Path) -> np.ndarray:
    """The token ids of a dataset, from the cache if it was encoded before.

    Args:
      dataset: a text file, a folder, a pattern like texts/*.txt, or an .npz of token ids.
      model: gives the vocabulary.
      cache_dir: where encoded text is kept, under a hash of the text and the vocabulary.
    Returns: uint16 or int32 [tokens]; texts of several files have `<|endoftext|>` between them.
    Raises: UserError if there is no text, or a file is no text.
    """
    vocabulary, n_vocab = _vocabulary(model), model.hparams.n_vocab
    if dataset.endswith(".npz"):
        return read_tokens(Path(dataset), vocabulary, n_vocab)
    files = find_files(dataset)
    key = hashlib.sha256(" ".join([vocabulary, *map(fingerprint, files)]).encode()).hexdigest()
    cached = cache_dir / f"{key[:16]}.npz"
    if is_ours(cached):
        return read_tokens(cached, vocabulary, n_vocab)
    tokens = encode_files(files, model.encoder)
    cache_dir.mkdir(parents=True, exist_ok=True)
    write_tokens(cached, tokens, model)
    return tokens


def find_files(dataset: str) -> list[Path]:
    """The files that a path, a folder (with all below it) or a pattern names, sorted.

    Hidden ones are left out. Raises: UserError if there are none.
    """
    if not dataset or Path(dataset) == Path(Path(dataset).anchor or "no root"):
        raise UserError(f"the dataset must be a file, a folder or a pattern, got {dataset!r}")
    try:
        path = Path(dataset).expanduser()
        if path.is_file():
            return [path]
        found = path.rglob("*") if path.is_dir() else _matches(path)
        files = sorted(file for file in found if file.is_file() and not file.name.startswith("."))
    except OSError as error:
        raise UserError(f"the dataset {dataset!r}: {error.strerror}") from None
    except (ValueError, RuntimeError, NotImplementedError) as error:  # an odd pattern, ~nobody
        raise UserError(f"the dataset {dataset!r}: {error}") from None
    if not files:
        raise UserError(f"the dataset {dataset!r}: no such file, and no files that match")
    return files


def _matches(pattern: Path) -> Iterator[Path]:
    """What a pattern matches; as far as its folders exist they are names, brackets included."""
    folder, rest = Path(pattern.anchor), list(pattern.relative_to(pattern.anchor).parts)
    while rest and (folder / rest[0]).is_dir():
        folder /= rest.pop(0)
    if rest[-1:] == ["**"]:
        rest.append("*")
    return folder.glob(str(Path(*rest)))


def encode_files(files: list[Path], encoder: "Encoder") -> np.ndarray:
    """Encode text files, with a bar of the bytes read if stderr is a terminal.

    Returns: uint16 [tokens], or int32 where the vocabulary is larger.
    Raises: UserError if a file is not text, or all are empty.
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
    """The texts of a file, each in chunks: the `text` of each line of .jsonl, or all of the file.

    Raises: UserError, now or while the chunks are read, if it does not hold text.
    """
    if file.suffix == ".npz":
        raise UserError(f"{file} holds token ids, not text; keep it apart from texts")
    if file.suffix in (".csv", ".tsv", ".json"):
        raise UserError(
            f"{file} is a table, not text; put its texts in a .jsonl file, each in a line "
            'like {"text": "..."}'
        )
    chunks = text_chunks(str(file), on_read=on_read)
    if file.suffix != ".jsonl":
        yield chunks
        return
    for number, line in enumerate(lines(chunks), 1):
        if line.strip():
            yield [text_record(f"{file}, line {number}", line)["text"]]


def write_tokens(path: Path, tokens: np.ndarray, model: ModelFolder) -> None:
    """Write an .npz of one array, whose comment as a zip archive names the vocabulary.

    Other programs train on all arrays of a file, so the vocabulary must not be one of them.
    """
    with (
        replacing(path, f".{os.getpid()}.new") as file,  # several workers may write it
        zipfile.ZipFile(file, "w") as archive,
    ):
        archive.comment = MARK + _vocabulary(model).encode()
        with archive.open("tokens.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, tokens)


def is_ours(path: Path) -> bool:
    """Whether write_tokens wrote this file."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            return archive.comment.startswith(MARK)
    except (OSError, zipfile.BadZipFile):
        return False


def read_tokens(path: Path, vocabulary: str, n_vocab: int) -> np.ndarray:
    """All arrays of an .npz, one after the other: uint16 or int32 [tokens].

    Args:
      vocabulary: hash that the ids must be of, if the file names one; those of other
        programs do not.
    Raises: UserError if the file does not hold token ids.
    """
    dtype = np.uint16 if n_vocab <= 1 << 16 else np.int32
    tokens = [np.array([], dtype)]
    try:
        with open_file(path) as file, np.load(file, allow_pickle=False) as archive:
            comment = archive.zip.comment
            if comment.startswith(MARK) and comment != MARK + vocabulary.encode():
                raise UserError("was encoded with the vocabulary of another model; encode it again")
            for name in archive.files:
                array = archive[name]
                if array.dtype.kind not in "iu":
                    raise UserError(f"holds {array.dtype}, not token ids")
                if array.size and not 0 <= array.min() <= array.max() < n_vocab:
                    raise UserError(f"holds ids that are not from 0 to n_vocab - 1 = {n_vocab - 1}")
                tokens.append(array.ravel().astype(dtype))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    except Exception:  # an archive can be wrong in too many ways to list
        raise UserError(
            f"{path} is not an .npz of token ids; make one with src/encode.py"
        ) from None
    return np.concatenate(tokens)


def hold_out(tokens: np.ndarray, held_out: float, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The tokens to train on, and the share `held_out` at the end that is kept from training.

    Raises: UserError if one of them is shorter than a window and the token after it.
    """
    cut = round(len(tokens) * (1 - held_out))
    for part, size in [("to train on", cut), ("held out", len(tokens) - cut)]:
        if size <= window and (part == "to train on" or held_out):
            enough = held_out and len(tokens) > window
            raise UserError(
                f"the dataset is too short: {size} of its {len(tokens)} tokens are {part}, and a "
                f"window needs {window + 1}; give more text, or a smaller --window"
                + (", or --held_out 0 to train without validation" if enough else "")
            )
    return tokens[:cut], tokens[cut:]


def random_windows(tokens: np.ndarray, window: int, n: int, seed: list[int]) -> np.ndarray:
    """`n` windows that begin anywhere, each with the token after it: int32 [n, window + 1]."""
    starts = np.random.default_rng(seed).integers(0, len(tokens) - window, [n, 1])
    return tokens[starts + np.arange(window + 1)].astype(np.int32)


def neighbouring_windows(tokens: np.ndarray, window: int, most: int) -> np.ndarray:
    """Consecutive windows, each with the token after it: int32 [at most `most`, window + 1].

    If there are more they are spread evenly over the tokens.
    """
    n = max(len(tokens) - 1, 0) // window
    starts = window * np.linspace(0, n, min(n, most), endpoint=False).astype(int)[:, None]
    return tokens[starts + np.arange(window + 1)].astype(np.int32)


def _vocabulary(model: ModelFolder) -> str:
    """A hash of the vocabulary."""
    return " ".join(fingerprint(model.path / name) for name in ("encoder.json", "vocab.bpe"))
