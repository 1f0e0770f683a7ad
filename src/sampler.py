"""A model in memory that continues text: what the sampling scripts share."""

import math
import sys
from collections.abc import Iterator

import numpy as np

import checkpoint
from command_line import choose_model, import_tensorflow
from encoder import get_encoder
from settings import Sampling, UserError, require


class Sampler:
    """Load a model and sample from it.

    Whatever a user can have got wrong is checked before TensorFlow is imported.

    Args:
      model_name, models_dir: as in command_line.choose_model.
      length: tokens in a sample; None is n_ctx, less those that `prompt_share` leaves to prompts.
      prompt_share: part of n_ctx that is kept for the prompt where `length` is None.
      temperature, top_k, top_p: as in settings.Sampling.
      batch_size: samples made side by side.
      seed: makes the random draws repeatable.
    Attributes: hparams, sampling, batch_size and encoder.
    Raises: UserError
    """

    def __init__(
        self,
        *,
        model_name: str | None,
        models_dir: str,
        length: int | None,
        temperature: float,
        top_k: int,
        top_p: float,
        batch_size: int,
        seed: int | None,
        prompt_share: float = 0,
    ):
        folder, notice = choose_model(model_name, models_dir)
        self.hparams = checkpoint.load_hparams(folder)
        if length is None:
            length = round(self.hparams.n_ctx * (1 - prompt_share))
        self.sampling = Sampling(length, temperature, top_k, top_p)
        self.sampling.check(self.hparams)
        require("batch_size", batch_size, batch_size >= 1, "at least 1")
        self.batch_size = batch_size
        weights = checkpoint.find_weights(folder, self.hparams)
        self.encoder = get_encoder(folder.name, str(folder.parent))
        if len(self.encoder.encoder) != self.hparams.n_vocab:
            raise UserError(
                f"{folder}: hparams.json says {self.hparams.n_vocab} tokens, encoder.json has "
                f"{len(self.encoder.encoder)}; the two are not of one model"
            )

        if notice:
            print(notice, file=sys.stderr)
        tf = import_tensorflow()
        import sample

        config = tf.ConfigProto()
        config.gpu_options.allow_growth = True
        self.session = tf.Session(graph=tf.Graph(), config=config)
        with self.session.graph.as_default():
            tf.set_random_seed(seed)
            self._context = tf.placeholder(tf.int32, [batch_size, None])
            self._output = sample.sample_sequence(
                hparams=self.hparams,
                length=length,
                context=self._context,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
            )
            checkpoint.restore(self.session, weights)

    def __call__(self, context: list[int]) -> np.ndarray:
        """A batch of continuations of a context: int32 [batch, length].

        Raises: UserError if the context is empty, or too long for n_ctx.
        """
        self.sampling.check_context(len(context), self.hparams)
        feed = {self._context: [context] * self.batch_size}
        return self.session.run(self._output, feed)[:, len(context) :]

    def samples(self, context: list[int], count: int) -> Iterator[str]:
        """The texts of `count` continuations of a context, made in batches; 0 goes on for ever."""
        remaining = count if count else math.inf
        while remaining > 0:
            for ids in self(context)[: min(self.batch_size, remaining)]:
                yield self.encoder.decode(ids)
            remaining -= self.batch_size


def banner(number: int) -> str:
    """The line above a sample."""
    return f"{'=' * 40} SAMPLE {number} {'=' * 40}"
