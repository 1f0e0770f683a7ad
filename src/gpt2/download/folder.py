"""The folder of a downloaded model: the hashes of its files, and what is wrong with them."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from gpt2 import tensor_index
from gpt2.atomic_file import replacing
from gpt2.download import check
from gpt2.download.released_files import DATA, INDEX, ExpectedFile, released_file

SUMS = "SHA256SUMS"  # the hashes of what arrived, as sha256sum writes them
ORIGIN = "# converted from "  # the first line of SUMS, if the files were converted


def recorded(folder: Path) -> tuple[str, dict[str, str]]:
    """The content of SUMS: what the files were converted from, or "", and their hashes."""
    origin, sums = "", {}
    with contextlib.suppress(OSError):  # there is none
        for line in (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines():
            sha256, _, name = line.partition("  ")
            if line.startswith(ORIGIN):
                origin = line.removeprefix(ORIGIN)
            elif name:
                sums[name] = sha256
    return origin, sums


def record(folder: Path, sums: Mapping[str, str], origin: str = "") -> None:
    """Write SUMS. Raises: OSError."""
    lines = [f"{ORIGIN}{origin}\n"] if origin else []
    lines += [f"{sha256}  {name}\n" for name, sha256 in sums.items()]
    with replacing(folder / SUMS) as file:
        file.write("".join(lines).encode())


def expected_download(folder: Path, name: str) -> ExpectedFile:
    """What a downloaded file must match; the size of the weights follows from their index."""
    expected = released_file(folder.name, name)
    if name == DATA and expected.size is None:
        with contextlib.suppress(OSError, ValueError):
            size = tensor_index.data_files(folder / INDEX)[folder / DATA]
            expected = dataclasses.replace(expected, size=max(size, expected.least))
    return expected


def expected_on_disk(folder: Path, name: str) -> ExpectedFile:
    """What a model's file on the disk must match: the release, or else what arrived."""
    origin, sums = recorded(folder)
    expected = ExpectedFile() if origin else expected_download(folder, name)
    return dataclasses.replace(expected, sha256=expected.sha256 or sums.get(name))


def problem_on_disk(folder: Path, name: str) -> str:
    """What is wrong with a model's file, or ""."""
    path = folder / name
    return check.problem(path, expected_on_disk(folder, name)) if path.is_file() else "is not here"


def size_error_on_disk(folder: Path, name: str) -> str:
    """What is wrong with the size of a model's file, or ""; does not read it."""
    path = folder / name
    if not path.is_file():
        return "is not here"
    wrong = expected_on_disk(folder, name).size_error(path.stat().st_size)
    if not wrong and name == DATA and not tensor_index.is_complete(folder / INDEX):
        wrong = f"does not fit {INDEX}"
    return wrong


def other_checkpoints(folder: Path, address: str = "") -> list[str]:
    """The complete checkpoints in a model's folder that were not downloaded from `address`.

    `address` is that of a model that is converted; "" stands for the servers of the release.
    """
    from_there = not address or recorded(folder)[0].startswith(f"{address}@")
    found = {path.stem for path in folder.glob("*.index") if tensor_index.is_complete(path)}
    if from_there and not problem_on_disk(folder, INDEX) and not size_error_on_disk(folder, DATA):
        found.remove("model.ckpt")
    return sorted(name for name in found if not name.startswith("part."))
