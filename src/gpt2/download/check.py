"""Finding what is wrong with a file, by its hash or else by its content."""

import hashlib
import re
import shutil
from pathlib import Path

from tqdm import tqdm

from gpt2.download.released_files import INDEX, SHARD, ExpectedFile
from gpt2.tensorflow_session import import_tensorflow
from gpt2.user_file import parse_json

READ_SIZE = 1 << 20  # bytes
NOT_THE_FILE = re.compile(
    rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|error)|version https://git-lfs", re.IGNORECASE
)


def not_the_file(start: bytes) -> str:
    """What is wrong with a file that begins like this, or "": servers send web pages instead."""
    found = NOT_THE_FILE.match(start)
    return "is a web page or a Git LFS pointer, not the file" if found else ""


def problem(path: Path, expected: ExpectedFile) -> str:
    """What is wrong with a file, as a text to follow its name; "" if nothing is."""
    if wrong := expected.size_error(path.stat().st_size):
        return wrong
    if expected.sha256:
        found = file_hash(path)
        wrong = f"has SHA-256 {found} instead of {expected.sha256}"
        return "" if found == expected.sha256 else wrong
    if path.name.endswith(SHARD):
        return tensor_problem(path)
    content = path.read_bytes()
    try:
        if path.name.endswith(".json"):
            parse_json(content.decode("utf-8"))
    except ValueError as error:
        return f"is damaged ({error})"
    return not_the_file(content)


def tensor_problem(data: Path) -> str:
    """Let TensorFlow compare each tensor with its checksum in the index; what is wrong, or ""."""
    index, prefix = data.with_name(INDEX), data.with_name(data.name.removesuffix(SHARD))
    if not index.exists():
        return f"cannot be checked without {INDEX}"
    tf = import_tensorflow()
    own_index = data.with_name(f"{prefix.name}.index")  # where TensorFlow looks for it
    if own_index != index:
        shutil.copyfile(index, own_index)
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        with progress(f"checking {data.name}", data.stat().st_size) as bar:
            for name in reader.get_variable_to_shape_map():
                bar.update(reader.get_tensor(name).nbytes)
    except Exception as error:  # of many kinds: an IndexError for a truncated file
        return f"does not fit {INDEX} ({error})"
    finally:
        if own_index != index:
            own_index.unlink()
    return ""


def file_hash(path: Path) -> str:
    """The SHA-256 of a file in hex; a bar shows the progress if it takes longer."""
    digest = hashlib.sha256(usedforsecurity=False)
    bar = progress(f"checking {path.name}", path.stat().st_size, delay=0.5)
    with bar, path.open("rb") as file:
        while chunk := file.read(READ_SIZE):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def progress(what: str, total: int | None, done: int = 0, delay: float = 0) -> tqdm:
    """A bar in bytes on stderr if that is a terminal; it is wiped away at the end."""
    return tqdm(
        desc=what, total=total, initial=done, delay=delay,
        unit="B", unit_scale=True, leave=False, disable=None,
    )  # fmt: skip
