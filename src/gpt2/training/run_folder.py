"""The folder of a training run: a model as released ones are, what a resumed run needs, and logs.

    checkpoint/NAME/          the released file set: weights of the last updates, and the vocabulary
    checkpoint/NAME/best/     the same, with the weights of the lowest held-out loss
    checkpoint/NAME/state/    weights, the optimizer's variables and the number of updates
    checkpoint/NAME/logs/     log.csv, and event files for TensorBoard

Weights are written under a new name. The file `checkpoint`, which names those that count, is
replaced when they are whole, by tf.train.Saver: whenever the process dies, all that is named there
can be read.
"""

import csv
import re
from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf

from gpt2 import checkpoint
from gpt2.atomic_file import replacing
from hparams import UserError

# What `save` writes; the endings in the last group are those of unfinished files.
OWN_FILE = re.compile(
    r"model-\d+\.(meta|index|data-\d{5}-of-\d{5})(\.new|\.tempstate\d+)?", re.ASCII
)


class RunFolder:
    """The checkpoints of a run.

    Args:
      folder: of the run.
      model_folder: gives the shape and the vocabulary.
      meta_graph: what the files .meta hold.
      weights: the model's variables.
      keep: how many of the last checkpoints are kept.
    """

    def __init__(
        self, folder: Path, model_folder: Path, meta_graph: bytes, weights: list[Any], keep: int
    ):
        self.folder, self.best, self.state = folder, folder / "best", folder / "state"
        self._model_folder, self._meta_graph = model_folder, meta_graph
        self._savers = {
            self.folder: _saver(weights, keep),
            self.best: _saver(weights, 1),
            self.state: _saver(None, 1),
        }

    def resume(self, session: Any) -> bool:
        """Restore all variables from the last state, if there is one.

        Raises: UserError if it is of a run with other variables, or damaged.
        """
        prefix = tf.train.latest_checkpoint(str(self.state))
        if prefix is None:
            return False
        try:
            checkpoint.restore(session, Path(prefix))
        except UserError as error:
            reason = str(error).partition(";")[0]
            raise UserError(
                f"{self.folder} cannot be gone on with: {reason}; use the flags that it was begun "
                "with, or another --run_name"
            ) from None
        return True

    def save(self, session: Any, step: int) -> None:
        """Keep the weights, and the state. Raises: OSError if they cannot be written."""
        self._save(self.folder, session, step)
        self._save(self.state, session, step)

    def save_best(self, session: Any, step: int) -> None:
        """Keep the weights as the best ones. Raises: OSError if they cannot be written."""
        self._save(self.best, session, step)

    def prepare(self) -> None:
        """Make the folder what it is to be before anything is saved."""
        for place in self._savers:
            place.mkdir(parents=True, exist_ok=True)
            self._forget_torn_files(place)
        for place in (self.folder, self.best):
            for name in checkpoint.VOCABULARY:
                with replacing(place / name) as file:
                    file.write((self._model_folder / name).read_bytes())

    def log(self, step: int) -> "Log":
        """The log of the run, which has made `step` updates."""
        return Log(self.folder / "logs", step)

    def _save(self, place: Path, session: Any, step: int) -> None:
        prefix = place / f"model-{step}"
        try:
            if place != self.state:
                with replacing(prefix.with_suffix(".meta")) as file:
                    file.write(self._meta_graph)
            self._savers[place].save(session, str(prefix), write_meta_graph=False)
        except tf.errors.OpError as error:
            self._forget_torn_files(place)
            reason = str(error.message).splitlines()[0]
            raise OSError(None, f"cannot be written: {reason}", str(prefix)) from None

    def _forget_torn_files(self, place: Path) -> None:
        """Delete what an interrupted run left: all weights that `checkpoint` does not name."""
        found = tf.train.get_checkpoint_state(str(place))
        whole = list(found.all_model_checkpoint_paths) if found else []
        self._savers[place].recover_last_checkpoints(whole)
        names = {Path(path).name for path in whole}
        for path in place.iterdir():
            if OWN_FILE.fullmatch(path.name) and path.name.partition(".")[0] not in names:
                path.unlink()


def _saver(variables: list[Any] | None, keep: int) -> Any:
    return tf.train.Saver(variables, max_to_keep=keep, save_relative_paths=True)


class Log:
    """The curves of a run: a CSV, and event files for TensorBoard.

    Args:
      folder: to write to.
      step: updates made so far; what was logged of later ones, by a run that was killed, goes.
    """

    COLUMNS = ("step", "loss", "rate", "tokens_per_second", "held_out_loss")

    def __init__(self, folder: Path, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.csv"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        rows = text[: text.rfind("\n") + 1].splitlines()[1:]  # a torn row has no line end
        kept = [row for row in rows if int(row.partition(",")[0]) <= step]
        with replacing(path) as new:
            new.write("".join(f"{row}\n" for row in [",".join(self.COLUMNS), *kept]).encode())
        self._file = path.open("a", encoding="utf-8", newline="")
        self._csv = csv.DictWriter(self._file, self.COLUMNS, lineterminator="\n")
        self._events = tf.summary.FileWriter(str(folder))
        start = tf.SessionLog(status=tf.SessionLog.START)
        self._events.add_session_log(start, step + 1)  # TensorBoard drops what it has from there on

    def add(self, step: int, **values: float) -> None:
        """Write what is known of an update, by the names of COLUMNS."""
        self._csv.writerow({"step": step, **values})
        self._file.flush()
        summary = tf.Summary(
            value=[tf.Summary.Value(tag=name, simple_value=x) for name, x in values.items()]
        )
        self._events.add_summary(summary, step)

    def flush(self) -> None:
        """Bring the event files to the disk; before a checkpoint, so that they never lag behind."""
        self._events.flush()

    def close(self) -> None:
        """End the files."""
        self._file.close()
        self._events.close()
