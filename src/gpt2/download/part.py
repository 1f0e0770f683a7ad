"""A file that is being downloaded: `part.NAME`, and a note of what the server said of it.

They are next to the file's final place, where the next run finds them. The file gets its own name
only when it is complete and checked.
"""

import base64
import dataclasses
import json
import os
from pathlib import Path
from typing import IO

from gpt2.download import release
from gpt2.download.plain_file import is_plain, open_plain
from gpt2.download.release import FileHash, Known
from gpt2.user_file import parse_json

MOST_NOTE = 10_000  # bytes


@dataclasses.dataclass(frozen=True)
class Said:
    """What a server said of a complete file."""

    size: int | None = None
    md5: str | None = None  # as in Content-MD5
    version: str | None = None  # a strong ETag: equal only if every byte is
    sha256: str | None = None  # as in Hugging Face's X-Linked-Etag
    commit: str | None = None  # as in Hugging Face's X-Repo-Commit

    @classmethod
    def read(cls, note: Path) -> "Said | None":
        """What a note holds; None if it is not one of ours."""
        try:
            with open_plain(note, "rb") as file:
                values = parse_json(file.read(MOST_NOTE).decode("utf-8"))
            said = cls(**values)
        except (OSError, ValueError, TypeError):
            return None
        size, *texts = dataclasses.astuple(said)
        right = size is None or (type(size) is int and size >= 0)
        return said if right and all(isinstance(text, str | None) for text in texts) else None


class Part:
    """What has arrived of a file."""

    def __init__(self, final: Path):
        self.final, self.path = final, final.with_name(f"part.{final.name}")
        self.note = final.with_name(f"part.{final.name}.json")
        self.resumed = False  # by this run
        self.hash, self.said = FileHash(self.path), Said()
        said = Said.read(self.note)
        if said is None or not is_plain(self.path) or self.size() > (said.size or self.size()):
            self.discard()
        else:
            self.said = said

    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    def open(self, mode: str) -> IO[bytes]:
        """Open what has arrived, without following links. Raises: OSError."""
        return open_plain(self.path, mode)

    def discard(self) -> None:
        """Forget what has arrived."""
        self.hash, self.said = FileHash(self.path), Said()
        for path in (self.path, self.note):
            path.unlink(missing_ok=True)

    def restart(self, said: Said) -> None:
        """Begin again with a file of which the server said `said`."""
        self.discard()
        with open_plain(self.note, "xb") as file:
            file.write(json.dumps(dataclasses.asdict(said)).encode())
        self.said = said

    def flush(self) -> None:
        """Bring what has arrived to the disk."""
        with self.open("r+b") as file:
            os.fsync(file.fileno())

    def can_resume(self, known: Known) -> bool:
        """Whether a mixture of two versions would be noticed."""
        return bool(self.said.version or self.said.md5 or self.said.sha256 or known.sha256)

    def problem(self, known: Known) -> str:
        """What is wrong with what has arrived, or ""."""
        known = dataclasses.replace(
            known, size=known.size or self.said.size, sha256=known.sha256 or self.said.sha256
        )
        found, md5 = release.problem(self.path, known, self.hash), self.said.md5
        if not found and md5:
            arrived = base64.b64encode(FileHash(self.path, "md5").catch_up()).decode()
            found = "" if arrived == md5 else f"has MD5 {arrived} instead of the server's {md5}"
        return found

    def finish(self, sums: IO[str]) -> None:
        """Give the file its name, and write down its hash."""
        sha256 = self.hash.catch_up().hex()
        self.path.replace(self.final)
        self.note.unlink()
        release.add_sum(sums, self.final.name, sha256)
        flush_folder(self.final.parent)


def flush_folder(folder: Path) -> None:
    """Bring the names of files to the disk."""
    if os.name == "posix":  # elsewhere a folder cannot be flushed
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
