"""The log of a training run: `log.csv`, `loss.svg`, and event files for TensorBoard."""

import contextlib
import csv
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
      step: train steps so far; later rows, logged by a run that was killed, are dropped.
    Raises: UserError if log.csv is not such a log; OSError, here and in all methods, if a file
      cannot be written.
    """

    def __init__(self, folder: Path, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._plot = folder / "log.csv", folder / "loss.svg"
        rows = _read_rows(self._path, step)
        with replacing(self._path) as new:
            new.write("".join(f"{row}\n" for row in [",".join(LOG_COLUMNS), *rows]).encode())
        self._training: list[tuple[int, float]] = []
        self._validation: list[tuple[int, float]] = []
        for row in csv.DictReader(rows, LOG_COLUMNS):
            self._extend_curves(int(row["step"]), row)
        self._file = self._path.open("a", encoding="utf-8", newline="")
        self._csv = csv.DictWriter(self._file, LOG_COLUMNS, lineterminator="\n")
        self._events_path = folder / f"events.out.tfevents.{time.time_ns()}"
        # Not tf.summary.FileWriter, whose thread prints a traceback if the disk is full.
        self._events = tf.io.TFRecordWriter(str(self._events_path))
        self._add_event(file_version="brain.Event:2")
        # TensorBoard drops what it has read of this step and later ones.
        start = tf.SessionLog(status=tf.SessionLog.START)
        self._add_event(session_log=start, step=step + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of a train step, which are named as in LOG_COLUMNS."""
        with named_write_errors(self._path):
            self._csv.writerow({"step": step, **values})
            self._file.flush()
        self._extend_curves(step, values)
        summary = tf.Summary(
            value=[tf.Summary.Value(tag=name, simple_value=x) for name, x in values.items()]
        )
        self._add_event(summary=summary, step=step)

    def draw(self) -> None:
        """Draw the curves so far."""
        with replacing(self._plot) as file:
            file.write(loss_svg(self._training, self._validation).encode())

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

    def _extend_curves(self, step: int, values: Mapping[str, Any]) -> None:
        self._training.append((step, float(values["training_loss"])))
        if values.get("validation_loss") not in (None, ""):
            self._validation.append((step, float(values["validation_loss"])))


def _read_rows(path: Path, step: int) -> list[str]:
    """The rows of a log.csv up to a train step, without the head.

    Raises: UserError if it is not a training log.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        rows = text[: text.rfind("\n") + 1].splitlines()[1:]  # an incomplete row has no line end
        numbers = [[float(x or 0) for x in row.split(",")] for row in rows]
        if any(len(row) != len(LOG_COLUMNS) for row in numbers):
            raise ValueError
    except ValueError:
        message = f"{path} is not the log of a training run; move it elsewhere to resume"
        raise UserError(message) from None
    return [row for row, values in zip(rows, numbers, strict=True) if values[0] <= step]
