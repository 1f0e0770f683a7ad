"""The formats of samples, and a file of samples that survives any interruption."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Any, TextIO

from gpt2.atomic_file import replacing
from gpt2.file_lock import is_open_file
from gpt2.user_file import parse_json, read_text
from user_error import UserError


@dataclasses.dataclass(frozen=True)
class Sample:
    """One sample, and where it comes from."""

    number: int  # from 1
    prompt: str | None
    tokens: list[int]  # what follows the prompt
    text: str
    ended: bool  # by `<|endoftext|>` or a stop string


def banner(number: int) -> str:
    """The line above a sample."""
    return f"{'=' * 40} SAMPLE {number} {'=' * 40}"


class PlainText:
    """What the original prints; a prompt stands before its continuation."""

    def header(self, settings: dict[str, Any]) -> str:
        """A line that calls the text synthetic, with the settings."""
        made = ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
        return f"# Synthetic text, written by a language model: {made}\n"

    def sample(self, sample: Sample, settings: dict[str, Any]) -> str:
        """A banner and the text."""
        return self.beginning(sample) + "\n"

    def beginning(self, sample: Sample) -> str:
        """The same of a sample that still grows."""
        return f"{banner(sample.number)}\n{sample.prompt or ''}{sample.text}"


class JsonLines:
    """One JSON object a line, each marked as synthetic."""

    def header(self, settings: dict[str, Any]) -> str:
        """Nothing: each line has all settings."""
        return ""

    def sample(self, sample: Sample, settings: dict[str, Any]) -> str:
        """A line."""
        record = {"synthetic": True, **dataclasses.asdict(sample), "settings": settings}
        return json.dumps(record, ensure_ascii=False) + "\n"

    def beginning(self, sample: Sample) -> str:
        """Nothing: a line is written when it is complete."""
        return ""


Format = PlainText | JsonLines
FORMATS: dict[str, Format] = {"text": PlainText(), "jsonl": JsonLines()}


class Output:
    """A file of samples: a new one, or one that an interrupted run began.

    A second file, `PATH.progress`, records how much of the first is complete, and its settings. It
    is replaced atomically, after the samples that it counts have reached the disk. Anything behind
    them is part of a sample and is cut off.

    Args:
      path, format: of the file.
      settings: all that the samples depend on; written with them.
      layout: the format and the shard. A file with other settings or another layout is refused.
    Attributes: done, the number of samples in the file.
    Raises: UserError if there is a file that this dump cannot continue.
    """

    def __init__(
        self, path: Path, format: Format, settings: dict[str, Any], layout: dict[str, Any]
    ):
        self.path, self.format, self.settings = path, format, settings
        self.recorded = settings | layout
        self.record_path = path.with_name(path.name + ".progress")
        self.done = self.size = 0
        if record := read_record(path):
            self._resume(record)
        elif path.exists():
            raise UserError(
                f"{path} exists without {self.record_path.name}, so it is not a dump; choose "
                "another name for --output"
            )
        else:
            self._record()  # before the file, so that a kill leaves no file without a record
        if self.size and (not path.exists() or path.stat().st_size < self.size):
            raise UserError(
                f"{path} is shorter than recorded in {self.record_path}: samples are missing; "
                "delete both, or choose another name for --output"
            )
        self.file = path.open("ab", buffering=0)
        self.file.truncate(self.size)
        if not self.size:
            self._append(format.header(settings), 0)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _resume(self, record: dict[str, Any]) -> None:
        for name, value in self.recorded.items():
            if record["settings"].get(name) != value:
                raise UserError(
                    f"{self.path} was begun with {name} {record['settings'].get(name)}, not "
                    f"{value}; use the same flags, or choose another name for --output"
                )
        self.done, self.size = record["samples"], record["bytes"]

    def write(self, samples: list[Sample]) -> None:
        """Append samples. They are on the disk when this returns.

        Raises: OSError if they can't be written, for example on a full disk. The file then ends
          with the last sample written before. Also if another program has changed the file.
        """
        unchanged = os.fstat(self.file.fileno()).st_size == self.size
        if not unchanged or not is_open_file(self.path, self.file):
            reason = f"was moved, removed or changed during the run, after {self.done} samples"
            raise OSError(None, reason, str(self.path))
        texts = [self.format.sample(sample, self.settings) for sample in samples]
        self._append("".join(texts), len(samples))

    def _append(self, text: str, n_samples: int) -> None:
        rest = memoryview(text.encode("utf-8"))
        size = self.size + len(rest)
        try:
            while rest:
                rest = rest[self.file.write(rest) :]
            os.fsync(self.file.fileno())
        except BaseException as error:  # Ctrl-C, too, can leave part of a sample
            with contextlib.suppress(OSError):
                self.file.truncate(self.size)
            if not isinstance(error, OSError):
                raise
            reason = f"{error.strerror}; the same command continues the dump"
            raise OSError(error.errno, reason, str(self.path)) from None
        self.done, self.size = self.done + n_samples, size
        self._record()

    def _record(self) -> None:
        record = {"samples": self.done, "bytes": self.size, "settings": self.recorded}
        with replacing(self.record_path) as file:
            file.write(json.dumps(record).encode())
            file.flush()
            os.fsync(file.fileno())


def read_record(path: Path) -> dict[str, Any] | None:
    """The record of the output at `path`: samples, bytes and settings; None if there is none.

    Raises: UserError if the record is damaged, or another program's.
    """
    record_path = path.with_name(path.name + ".progress")
    if not record_path.exists():
        return None
    try:
        record = parse_json(read_text(record_path))
        seed = record["settings"]["seed"]
        if min(record["samples"], record["bytes"]) >= 0 and isinstance(seed, int):
            return record
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(
        f"{record_path} is damaged; the samples in {path} are safe: delete {record_path}, and "
        "choose another --output for new samples"
    )


class Stream:
    """A stream of text, such as standard output, which always begins with the first sample.

    Attributes: done, the number of samples in it; shown, what it has of the next one.
    """

    def __init__(self, stream: TextIO, format: Format, settings: dict[str, Any]):
        self.stream, self.format, self.settings = stream, format, settings
        self.done = 0
        self._rest = format.header(settings)  # comes before the next sample
        self.shown = ""

    def show(self, sample: Sample) -> None:
        """Write the next sample as far as it exists; its text only grows from call to call."""
        self._extend(self.format.beginning(sample))
        self.stream.flush()

    def write(self, samples: list[Sample]) -> None:
        """Write samples, the first without the part that was shown."""
        for sample in samples:
            self._extend(self.format.sample(sample, self.settings))
            self.shown = ""
        self.stream.flush()
        self.done += len(samples)

    def _extend(self, text: str) -> None:
        self.stream.write(self._rest + text[len(self.shown) :])
        self._rest, self.shown = "", text

    def close(self) -> None:
        """End the line of an incomplete sample; the stream stays open."""
        if self.shown:
            self.stream.write("\n")
            self.stream.flush()
            self.shown = ""
