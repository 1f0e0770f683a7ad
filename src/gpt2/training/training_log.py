"""The log of a training run: `log.csv`, and event files for TensorBoard."""

import csv
from pathlib import Path

import tensorflow.compat.v1 as tf

from gpt2.atomic_file import replacing

COLUMNS = ("step", "training_loss", "learning_rate", "tokens_per_second", "validation_loss")


class TrainingLog:
    """An open log.

    Args:
      folder: where its files are.
      step: train steps so far; later rows, logged by a run that was killed, are dropped.
    """

    def __init__(self, folder: Path, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.csv"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        rows = text[: text.rfind("\n") + 1].splitlines()[1:]  # an incomplete row has no line end
        kept = [row for row in rows if int(row.partition(",")[0]) <= step]
        with replacing(path) as new:
            new.write("".join(f"{row}\n" for row in [",".join(COLUMNS), *kept]).encode())
        self._file = path.open("a", encoding="utf-8", newline="")
        self._csv = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
        self._events = tf.summary.FileWriter(str(folder))
        start = tf.SessionLog(status=tf.SessionLog.START)
        self._events.add_session_log(start, step + 1)  # TensorBoard drops this step and later ones

    def add(self, step: int, **values: float) -> None:
        """Log the values of a train step, which are named as in COLUMNS."""
        self._csv.writerow({"step": step, **values})
        self._file.flush()
        summary = tf.Summary(
            value=[tf.Summary.Value(tag=name, simple_value=x) for name, x in values.items()]
        )
        self._events.add_summary(summary, step)

    def flush(self) -> None:
        """Write the events to disk; before each checkpoint, so that none of its steps is lost."""
        self._events.flush()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._events.close()
