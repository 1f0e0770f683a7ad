"""The log of a training run: `log.csv`, `loss.svg`, and event files for TensorBoard."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf

from gpt2.atomic_file import replacing
from gpt2.training.loss_plot import loss_svg
from user_error import UserError

COLUMNS = ("step", "training_loss", "learning_rate", "tokens_per_second", "validation_loss")


class TrainingLog:
    """An open log.

    Args:
      folder: where its files are.
      step: train steps so far; later rows, logged by a run that was killed, are dropped.
    Raises: UserError if log.csv is not such a log.
    """

    def __init__(self, folder: Path, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        path, self._plot = folder / "log.csv", folder / "loss.svg"
        rows = _read_rows(path, step)
        with replacing(path) as new:
            new.write("".join(f"{row}\n" for row in [",".join(COLUMNS), *rows]).encode())
        self._training: list[tuple[int, float]] = []
        self._validation: list[tuple[int, float]] = []
        for row in csv.DictReader(rows, COLUMNS):
            self._extend_curves(int(row["step"]), row)
        self._file = path.open("a", encoding="utf-8", newline="")
        self._csv = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
        self._events = tf.summary.FileWriter(str(folder))
        start = tf.SessionLog(status=tf.SessionLog.START)
        self._events.add_session_log(start, step + 1)  # TensorBoard drops this step and later ones

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of a train step, which are named as in COLUMNS."""
        self._csv.writerow({"step": step, **values})
        self._file.flush()
        self._extend_curves(step, values)
        summary = tf.Summary(
            value=[tf.Summary.Value(tag=name, simple_value=x) for name, x in values.items()]
        )
        self._events.add_summary(summary, step)

    def flush(self) -> None:
        """Write the events to disk; before each checkpoint, so that none of its steps is lost."""
        self._events.flush()

    def draw(self) -> None:
        """Draw the curves so far. Raises: OSError if the picture cannot be written."""
        with replacing(self._plot) as file:
            file.write(loss_svg(self._training, self._validation).encode())

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._events.close()

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
        if any(len(row) != len(COLUMNS) for row in numbers):
            raise ValueError
    except ValueError:
        message = f"{path} is not the log of a training run; move it elsewhere to resume"
        raise UserError(message) from None
    return [row for row, values in zip(rows, numbers, strict=True) if values[0] <= step]
