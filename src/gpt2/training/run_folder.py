"""The folder of a training run: a model in the released format, what resuming needs, and logs.

    checkpoint/NAME/          the released file set: the last weights, and the vocabulary
    checkpoint/NAME/best/     the same, with the weights of the lowest validation loss
    checkpoint/NAME/state/    weights, the optimizer's variables and the number of train steps; the
                              file `text` has a checksum of the text that was trained on
    checkpoint/NAME/logs/     log.csv, loss.svg, and event files for TensorBoard

Weights are written under a new name. Once they are complete, tf.train.Saver replaces the file
`checkpoint`, which names the current ones. So even if the process is killed, everything that is
named there can be read.
"""

import re
from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf

from gpt2 import checkpoint
from gpt2.atomic_file import replacing
from gpt2.model_folder import SMALL_FILES, ModelFolder
from user_error import UserError

# The files of a checkpoint; the last group matches incomplete ones.
OWN_FILE = re.compile(
    r"model-\d+\.(meta|index|data-\d{5}-of-\d{5})(\.new|\.tempstate\d+)?", re.ASCII
)


class RunFolder:
    """The checkpoints of a run.

    Args:
      folder: where the run is saved.
      model: gives the shape and the vocabulary.
      weights: the model's variables.
      keep: number of recent checkpoints to keep.
    """

    def __init__(self, folder: Path, model: ModelFolder, weights: list[Any], keep: int):
        self.folder, self.best, self.state = folder, folder / "best", folder / "state"
        self.logs = folder / "logs"
        self._model_path, self._meta_graph = model.path, checkpoint.meta_graph(model.hparams)
        self._text_path, self._text = self.state / "text", ""
        self._savers = {
            self.folder: _checkpoint_saver(weights, keep),
            self.best: _checkpoint_saver(weights, 1),
            self.state: _checkpoint_saver(None, 1),
        }

    def resume(self, session: Any) -> bool:
        """Restore all variables from the last saved state. Returns: whether there is one.

        Raises: UserError if it has other variables, or is damaged.
        """
        prefix = tf.train.latest_checkpoint(str(self.state))
        if prefix is None:
            return False
        try:
            checkpoint.restore(session, Path(prefix))
        except UserError as error:
            reason = str(error).partition(";")[0]
            raise UserError(
                f"cannot resume {self.folder}: {reason}; use the flags it was started with, or "
                "another --run_name"
            ) from None
        return True

    def set_text(self, checksum: str) -> bool:
        """Set the checksum of the text, which is saved with the state.

        Returns: whether the saved state belongs to another text.
        """
        self._text = checksum
        path = self._text_path
        return path.exists() and path.read_text(encoding="utf-8") != checksum

    def save(self, session: Any, step: int) -> None:
        """Save the weights and the state. Raises: OSError if they cannot be written."""
        self._save(self.folder, session, step)
        self._save(self.state, session, step)
        with replacing(self._text_path) as file:
            file.write(self._text.encode())

    def save_best(self, session: Any, step: int) -> None:
        """Save the weights as the best ones. Raises: OSError if they cannot be written."""
        self._save(self.best, session, step)

    def saved_weights(self) -> list[str]:
        """The last and the best saved weights, if there are any."""
        found = [tf.train.latest_checkpoint(str(place)) for place in (self.folder, self.best)]
        return [prefix for prefix in found if prefix]

    def prepare(self) -> None:
        """Create the folders, copy the vocabulary, and delete incomplete checkpoints."""
        for place, saver in self._savers.items():
            place.mkdir(parents=True, exist_ok=True)
            found = tf.train.get_checkpoint_state(str(place))
            complete = list(found.all_model_checkpoint_paths) if found else []
            saver.recover_last_checkpoints(complete)
            names = {Path(path).name for path in complete}
            for path in place.iterdir():  # what `checkpoint` does not name, an interruption left
                if OWN_FILE.fullmatch(path.name) and path.name.partition(".")[0] not in names:
                    path.unlink()
        for place in (self.folder, self.best):
            for name in SMALL_FILES:
                with replacing(place / name) as file:
                    file.write((self._model_path / name).read_bytes())

    def _save(self, place: Path, session: Any, step: int) -> None:
        prefix = place / f"model-{step}"
        if place != self.state:
            with replacing(prefix.with_suffix(".meta")) as file:
                file.write(self._meta_graph)
        with checkpoint.named_write_errors(prefix):
            self._savers[place].save(session, str(prefix), write_meta_graph=False)


def _checkpoint_saver(variables: list[Any] | None, keep: int) -> Any:
    return tf.train.Saver(variables, max_to_keep=keep, save_relative_paths=True)
