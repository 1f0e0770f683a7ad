"""The seven files of a model: their names, what is published about them, and how to check them."""

import contextlib
import dataclasses
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from gpt2 import tensor_index
from gpt2.conversion.folder import LFS_POINTER
from gpt2.download import read_tensors
from gpt2.download.plain_file import open_plain
from gpt2.user_file import parse_json

if TYPE_CHECKING:
    from tqdm import tqdm

INDEX, META, SHARD = "model.ckpt.index", "model.ckpt.meta", ".data-00000-of-00001"
DATA = "model.ckpt" + SHARD
# The index comes before the data, whose check needs it.
FILES = ("checkpoint", "encoder.json", "hparams.json", INDEX, META, "vocab.bpe", DATA)
SUMS = "SHA256SUMS"  # hashes of what arrived, as sha256sum writes them; also the folder's lock
ORIGIN = (
    "# converted from "  # the first line of SUMS where the files were not downloaded as they are
)


@dataclasses.dataclass(frozen=True)
class Known:
    """What a complete file must match."""

    size: int | None = None  # bytes
    sha256: str | None = None  # in hex
    least: int = 1  # bytes, where the size is not known
    most: int | None = None

    def refuses(self, size: int) -> str:
        """What is wrong with a file of `size` bytes, or "" if nothing is."""
        wanted = f"{self.size}" if self.size else f"at least {self.least}"
        if self.size is None and self.most is not None and size > self.most:
            wanted = f"at most {self.most}"
        elif size >= self.least and self.size in (None, size):
            return ""
        return f"has {size} bytes instead of {wanted}"

    def limit(self) -> int | None:
        """The bytes after which it is not worth reading on; None is no limit."""
        return self.size or self.most


# fmt: off
VOCABULARY = {
    "encoder.json": Known(
        1042301, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    "vocab.bpe": Known(456318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
}
RELEASED = {
    "124M": VOCABULARY | {
        "checkpoint": Known(77, "dd1b025d2e155283f5e300ce95bf6d5b6bc0f7fe010db73daa6975eb896ab9cb"),
        "hparams.json": Known(
            90, "d9d56e4121c427164e0c55c6f03c08e1daf9002b9b672825112d19097b680318"),
        INDEX: Known(5215, "71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687"),
        META: Known(471155, "4668c448fa11531fd6700460487f73e82d3272960cea942252f8744bf225c77b"),
        DATA: Known(497759232, "2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118"),
    },
    "355M": VOCABULARY | {
        "checkpoint": Known(77), "hparams.json": Known(91),
        INDEX: Known(10399), META: Known(926519), DATA: Known(1419292672),
    },
    # Computed, not observed: 4 bytes for each parameter, the exact size of the smaller two.
    # The larger two are held to have no less.
    "774M": VOCABULARY | {DATA: Known(least=3096120320)},
    "1558M": VOCABULARY | {DATA: Known(least=6230444800)},
}
MOST = {  # bytes of a file of which no size is published
    "checkpoint": 1 << 16, "hparams.json": 1 << 16, "encoder.json": 1 << 26, "vocab.bpe": 1 << 26,
    INDEX: tensor_index.MOST, META: 1 << 28,
}
# fmt: on
# A server may have a checkpoint under its name, under the release's first name, or both.
FIRST_NAMES = {"124M": "117M", "355M": "345M", "774M": "762M", "1558M": "1542M"}
MODELS = {name: pair for pair in FIRST_NAMES.items() for name in reversed(pair)}
PLAIN_NAME = re.compile(r"\w([\w.-]*[\w-])?", re.ASCII)

CHUNK = 1 << 20  # bytes
WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|error)", re.IGNORECASE)
BUNDLE = re.compile(r"TensorBundle at .* shard \d+ \(\d+ bytes\): ")  # only names the file again


class UncheckableError(Exception):
    """A file that cannot be checked here: why, and what to do."""


def published(model: str, name: str) -> Known:
    """What is known of a model's file before the server is asked."""
    known = RELEASED.get(remote_names(model)[0], {}).get(name, Known())
    return dataclasses.replace(known, most=MOST.get(name))


def wanted(folder: Path, name: str) -> Known:
    """What a downloaded file must match; the size of the weights follows from their index."""
    known = published(folder.name, name)
    if name == DATA and known.size is None:
        with contextlib.suppress(OSError, ValueError):
            size = tensor_index.data_files(folder / INDEX)[folder / DATA]
            known = dataclasses.replace(known, size=max(size, known.least))
    return known


def remote_names(model: str) -> tuple[str, ...]:
    """The folders of a server that may hold a model, the most likely first."""
    return MODELS.get(model, (model,))


def open_sums(folder: Path, mode: str) -> IO[str]:
    """Open the hashes of what arrived in a folder."""
    options = {"encoding": "utf-8", "errors": "replace", "newline": "\n"}
    return open_plain(folder / SUMS, mode, **options)


def read_sums(lines: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Where files were converted from, "" if they were not, and the SHA-256 of each file."""
    origin, sums = "", {}
    for line in lines:
        sha256, _, name = line.rstrip("\n").partition("  ")
        if line.startswith(ORIGIN):
            origin = line.rstrip("\n").removeprefix(ORIGIN)
        elif name:
            sums[name] = sha256
    return origin, sums


def write_sums(file: IO[str], sums: Mapping[str, str], origin: str = "") -> None:
    """Replace what an open SUMS holds."""
    file.seek(0)
    file.truncate()
    if origin:
        file.write(f"{ORIGIN}{origin}\n")
    file.writelines(f"{sha256}  {name}\n" for name, sha256 in sums.items())
    file.flush()


def add_sum(file: IO[str], name: str, sha256: str) -> None:
    """Add the hash of a file that has arrived to an open SUMS."""
    file.seek(0)
    origin, sums = read_sums(file)
    write_sums(file, sums | {name: sha256}, origin)


def recorded(folder: Path) -> tuple[str, dict[str, str]]:
    """What read_sums says of the files in a folder; nothing if SUMS is not there."""
    try:
        with open_sums(folder, "r") as file:
            return read_sums(file.read(MOST["checkpoint"]).splitlines())
    except OSError:
        return "", {}


def progress(
    what: str, total: int | None, done: int, delay: float = 0, disable: bool | None = None
) -> "tqdm":
    """A bar in bytes on stderr, if that is a terminal; it is wiped away at the end."""
    from tqdm import tqdm

    return tqdm(
        desc=what,
        total=total,
        initial=done,
        unit="B",
        unit_scale=True,
        leave=False,
        delay=delay,
        disable=disable,
    )


class FileHash:
    """The hash of a file that may still grow."""

    def __init__(self, path: Path, algorithm: str = "sha256"):
        self.path, self.done = path, 0
        self.digest = hashlib.new(algorithm, usedforsecurity=False)

    def catch_up(self, disable: bool | None = None) -> bytes:
        """The digest, after hashing what was added since the last call; shows a bar."""
        size, buffer = self.path.stat().st_size, memoryview(bytearray(CHUNK))
        bar = progress(f"checking {self.path.name}", size, self.done, delay=0.5, disable=disable)
        with bar, self.path.open("rb", buffering=0) as file:
            file.seek(self.done)
            while count := file.readinto(buffer):
                self.digest.update(buffer[:count])
                self.done += count
                bar.update(count)
        return self.digest.digest()


def expected(folder: Path, name: str) -> Known:
    """What a model's file on the disk must match: the release, or else what arrived."""
    origin, sums = recorded(folder)
    known = Known() if origin else wanted(folder, name)
    return dataclasses.replace(known, sha256=known.sha256 or sums.get(name))


def problem_on_disk(folder: Path, name: str) -> str:
    """What is wrong with a model's file, or ""."""
    path = folder / name
    if not path.is_file():
        return "is not here"
    return problem(path, expected(folder, name), FileHash(path))


def incomplete_on_disk(folder: Path, name: str) -> str:
    """What is wrong with the size of a model's file, or ""; reads neither it nor the network."""
    path = folder / name
    if not path.is_file():
        return "is not here"
    found = expected(folder, name).refuses(path.stat().st_size)
    if not found and name == DATA and not tensor_index.is_complete(folder / INDEX):
        found = f"does not fit {INDEX}"
    return found


def other_checkpoints(folder: Path, address: str = "") -> list[str]:
    """The complete checkpoints in a model's folder that did not come by download.

    `address` is that of a model that is converted on the way.
    """
    from_there = not address or recorded(folder)[0].startswith(f"{address}@")
    return [
        index.name.removesuffix(".index")
        for index in sorted(folder.glob("*.index"))
        if tensor_index.is_complete(index) and not (from_there and _is_released(index))
    ]


def _is_released(index: Path) -> bool:
    folder, data = index.parent, index.with_name(DATA)
    return (
        index.name == INDEX
        and not problem_on_disk(folder, INDEX)
        and data.is_file()
        and not expected(folder, DATA).refuses(data.stat().st_size)
    )


def not_the_file(start: bytes) -> str:
    """What servers send in place of a file, known by its first bytes; "" if it is none of these."""
    if WEB_PAGE.match(start):
        return "is a web page"
    return "is a Git LFS pointer, not the file" if start.startswith(LFS_POINTER) else ""


def problem(path: Path, known: Known, sha256: FileHash) -> str:
    """What is wrong with the file at `path`, in words that follow its name, or ""."""
    if found := known.refuses(path.stat().st_size):
        return found
    if known.sha256:
        found = sha256.catch_up().hex()
        return "" if found == known.sha256 else f"has SHA-256 {found} instead of {known.sha256}"
    with path.open("rb") as file:
        if found := not_the_file(file.read(CHUNK)):
            return found
    if path.name.endswith((".json", ".bpe", "checkpoint")):
        try:
            text = path.read_text(encoding="utf-8")
            parse_json(text if path.suffix == ".json" else "{}")
        except ValueError as error:
            return f"is not {'JSON' if path.suffix == '.json' else 'text'} ({error})"
    if path.suffix == ".index":
        try:
            tensor_index.data_files(path)
        except ValueError as error:
            return f"is not the index of a checkpoint ({error})"
    return tensor_problem(path) if path.name.endswith(SHARD) else ""


def tensor_problem(data: Path) -> str:
    """Let TensorFlow compare each tensor with its checksum in the index: a problem, or ""."""
    index, prefix = data.with_name(INDEX), str(data.resolve()).removesuffix(SHARD)
    if not index.exists():
        return f"cannot be checked without {INDEX}"
    beside = Path(prefix + ".index")  # where TensorFlow looks: `part.model.ckpt.index` for a part
    if beside.name != INDEX:
        beside.unlink(missing_ok=True)  # a link would be written through
        shutil.copyfile(index, beside)
    try:
        status, last = run_with_progress([sys.executable, read_tensors.__file__, prefix], data)
    finally:
        if beside.name != INDEX:
            beside.unlink()
    if status not in (0, read_tensors.DAMAGED):
        advice = "pip install -r requirements.txt, then run the same command again"
        raise UncheckableError(f"{data}: TensorFlow cannot check it ({last}); {advice}")
    reason = BUNDLE.sub("", last)
    return f"does not fit {INDEX} ({reason})" if status else ""


def run_with_progress(command: list[str], path: Path) -> tuple[int, str]:
    """Run a command that prints how many bytes of `path` it read; its status and last line."""
    last, pipe = "", subprocess.PIPE
    bar = progress(f"checking {path.name}", path.stat().st_size, 0)
    # stderr is taken, too: importing TensorFlow prints notices there that no setting hides.
    process = subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    with bar, process:
        for last in process.stdout or ():
            bar.update(int(last) if last.strip().isdigit() else 0)
    return process.returncode, last.strip()
