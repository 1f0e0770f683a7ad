"""A file that is being downloaded: `part.NAME`, next to a note of what the server reported."""

import dataclasses
import json
import os
from pathlib import Path

from gpt2.user_file import parse_json


@dataclasses.dataclass(frozen=True)
class ServerMetadata:
    """What a server reports about a complete file; None is unknown."""

    size: int | None = None
    etag: str | None = None  # a strong one: equal only if every byte is


class PartialFile:
    """What has arrived of a file."""

    def __init__(self, final: Path):
        self.final, self.path = final, final.with_name(f"part.{final.name}")
        self.note = final.with_name(f"part.{final.name}.json")
        try:
            self.server = ServerMetadata(**parse_json(self.note.read_text(encoding="utf-8")))
            if self.size() > (self.server.size or self.size()):
                self.discard()
        except (OSError, ValueError, TypeError):  # no note, or not one of ours
            self.discard()

    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    def discard(self) -> None:
        """Delete what has arrived."""
        self.server = ServerMetadata()
        for path in (self.path, self.note):
            path.unlink(missing_ok=True)

    def restart(self, server: ServerMetadata) -> None:
        """Start over, with a file that the server describes like this."""
        self.discard()
        self.note.write_text(json.dumps(dataclasses.asdict(server)), encoding="utf-8")
        self.server = server

    def finish(self) -> None:
        """Give the file its name. Raises: OSError."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())  # or a power cut could leave the name without the content
        self.path.replace(self.final)
        self.note.unlink()
