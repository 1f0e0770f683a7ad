"""The folder of a training run: a model in the released format, what resuming needs, and logs.

    checkpoint/NAME/          the released file set: the last weights, and the vocabulary
    checkpoint/NAME/best/     the same, with the weights of the lowest validation loss
    checkpoint/NAME/state/    weights, the optimizer's variables and the number of train steps
    checkpoint/NAME/logs/     log.csv and loss.svg

Weights are written under a new name. Once they are complete, tf.train.Saver replaces the file
`checkpoint`, which names the current ones. So even if the process is killed, everything that is
named there can be read.
"""

from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf

from gpt2 import checkpoint
from gpt2.atomic_file import replacing
from gpt2.model_folder import SMALL_FILES, ModelFolder
from user_error import UserError


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

    def save(self, session: Any, step: int) -> None:
        """Save the weights and the state. Raises: OSError if they cannot be written."""
        self._save(self.folder, session, step)
        self._save(self.state, session, step)

    def save_best(self, session: Any, step: int) -> None:
        """Save the weights as the best ones. Raises: OSError if they cannot be written."""
        self._save(self.best, session, step)

    def prepare(self) -> None:
        """Create the folders, copy the vocabulary, and delete what a killed run left half-written.

        Complete checkpoints that `checkpoint` does not name stay: the same steps replace them.
        """
        for place, saver in self._savers.items():
            place.mkdir(parents=True, exist_ok=True)
            found = tf.train.get_checkpoint_state(str(place))
            saver.recover_last_checkpoints(found.all_model_checkpoint_paths if found else [])
            for path in place.glob("model-*.tempstate*"):
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
