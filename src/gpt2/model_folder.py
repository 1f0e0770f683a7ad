"""A model on disk, as one object: what the scripts and the package pass around."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2 import checkpoint
from hparams import HParams

if TYPE_CHECKING:
    from encoder import Encoder


class ModelFolder:
    """A folder with the released file set. Each part is read when it is first asked for.

    Args:
      path: the folder.
    Attributes:
      path: the folder; name: its last part.
      hparams: the shape of the model.
      encoder: its vocabulary.
      weights: the prefix of the weights' file names, as `tf.train.Saver` takes it.
      end_of_text: the id of `<|endoftext|>`.
    Raises: UserError, at each attribute, if a file is missing or wrong.
    """

    def __init__(self, path: Path):
        self.path, self.name = path, path.name

    @cached_property
    def hparams(self) -> HParams:
        return checkpoint.load_hparams(self.path)

    @cached_property
    def encoder(self) -> "Encoder":
        return checkpoint.load_encoder(self.path, self.hparams)

    @cached_property
    def weights(self) -> Path:
        return checkpoint.find_weights(self.path, self.hparams)

    @property
    def end_of_text(self) -> int:
        return self.encoder.end_of_text


def find(model_name: str, models_dir: str = "models") -> ModelFolder:
    """The model of a name. Raises: UserError if there is none; see checkpoint.find_model."""
    return ModelFolder(checkpoint.find_model(model_name, models_dir))
