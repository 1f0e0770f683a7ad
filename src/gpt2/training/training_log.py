"""The log of a training run: `log.csv`, `loss.svg`, and event files for TensorBoard."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf

from gpt2.atomic_file import replacing
from gpt2.checkpoint import named_write_errors
from gpt2.training.loss_plot import loss_svg
from user_error import UserError

LOG_COLUMNS = ("step", "training_loss", "learning_rate", "tokens_per_second", "validation_loss")


class TrainingLog:
    """An open log.

    Args:
      folder: where its files are.
      step: train steps so far; later rows, which a killed run logged, are dropped.
    Raises: UserError if log.csv is not the log of a run; OSError, also in all methods, if a file
      cannot be written.
    """

    def __init__(self, folder: Path, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._plot = folder / "log.csv", folder / "loss.svg"
        self._rows = [row for row in _read_rows(self._path) if row["step"] <= step]
        with replacing(self._path) as file:
            head = ",".join(LOG_COLUMNS) + "\n"
            file.write("".join([head, *map(_line, self._rows)]).encode())
        self._file = self._path.open("a", buffering=1, encoding="utf-8", newline="")
        self._events_path = folder / f"events.out.tfevents.{time.time_ns()}"
        # Not tf.summary.FileWriter, whose thread prints a traceback if the disk is full.
        self._events = tf.io.TFRecordWriter(str(self._events_path))
        self._add_event(file_version="brain.Event:2")
        # TensorBoard drops what it has read of this step and later ones.
        start = tf.SessionLog(status=tf.SessionLog.START)
        self._add_event(session_log=start, step=step + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of a train step, which are named as in LOG_COLUMNS."""
        self._rows.append({"step": step, **values})
        with named_write_errors(self._path):
            self._file.write(_line(self._rows[-1]))
        summary = tf.Summary(
            value=[tf.Summary.Value(tag=name, simple_value=x) for name, x in values.items()]
        )
        self._add_event(summary=summary, step=step)

    def draw(self) -> None:
        """Draw the curves so far."""
        curves = (
            [(row["step"], row[name]) for row in self._rows if name in row]
            for name in ("training_loss", "validation_loss")
        )
        with replacing(self._plot) as file:
            file.write(loss_svg(*curves).encode())

    def close(self) -> None:
        """Close the files."""
        with contextlib.suppress(OSError):  # it would only repeat the error of `add`
            self._file.close()
        self._events.close()

    def _add_event(self, **fields: Any) -> None:
        """Add a record to the event file, with these fields of tf.Event."""
        event = tf.Event(wall_time=time.time(), **fields)
        with named_write_errors(self._events_path):
            self._events.write(event.SerializeToString())
            self._events.flush()


def _line(row: Mapping[str, float]) -> str:
    return ",".join(str(row.get(name, "")) for name in LOG_COLUMNS) + "\n"


def _read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a log.csv; a row lacks what was not measured at its step.

    Raises: UserError if it is not a training log.
    """
    rows = []
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        complete = text[: text.rfind("\n") + 1]  # an incomplete row has no line end
        for line in complete.splitlines()[1:]:
            step, *values = line.split(",")
            named = zip(LOG_COLUMNS[1:], values, strict=True)
            rows.append({"step": int(step)} | {name: float(x) for name, x in named if x})
    except ValueError:
        message = f"{path} is not the log of a training run; move it elsewhere to resume"
        raise UserError(message) from None
    return rows
