"""The folder of a downloaded model: the hashes of its files, and what is wrong with them."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from gpt2.atomic_file import replacing
from gpt2.download import check
from gpt2.download.released_files import INDEX, ExpectedFile, released_file

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


def problem_on_disk(folder: Path, name: str) -> str:
    """What is wrong with a model's file, compared with the release or else what arrived; or ""."""
    path, (origin, sums) = folder / name, recorded(folder)
    if not path.is_file():
        return "is not here"
    expected = ExpectedFile() if origin else released_file(folder.name, name)
    sha256 = expected.sha256 or sums.get(name)
    return check.problem(path, dataclasses.replace(expected, sha256=sha256))


def other_checkpoints(folder: Path, address: str = "") -> list[str]:
    """The checkpoints in a model's folder that were not downloaded from `address`.

    `address` is that of a model that is converted; "" stands for the servers of the release.
    """
    found = {path.stem for path in folder.glob("*.index") if not path.name.startswith("part.")}
    from_there = not address or recorded(folder)[0].startswith(f"{address}@")
    if from_there and not problem_on_disk(folder, INDEX):
        found.discard("model.ckpt")
    return sorted(found)
