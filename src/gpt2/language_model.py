"""A model in memory that continues text: what the sampling scripts share.

The random numbers of a sample do not depend on the batch that it is made in. Its logits can, in the
last digit, as the sums in matrix products are taken in another order for another batch size; where
two tokens are nearly level, that tips the choice. benchmarks/batch_agreement.py measures how often:
on a CPU, 7 or 32 samples side by side, not one, tip 60 to 70 of a million tokens of the model 1M,
which is in 1.6 to 1.8 % of samples of 256 tokens.
"""

import contextlib
import functools
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from encoder import END_OF_TEXT
from gpt2 import checkpoint
from gpt2.command_line import choose_model, import_tensorflow
from gpt2.tensorflow_session import check_device, choose_device
from hparams import DamagedModelError, HParams, Sampling, UserError, require

MAX_BATCH = 32  # more side by side gain little
DTYPES = "float32", "tf32", "bfloat16"
PIECE = 16  # tokens made between two looks at the keyboard
CONTAINER_LIMITS = [  # of Linux's control groups, version 2 and 1; in bytes
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
]


class Sampler:
    """A model that continues token ids.

    Making one checks all that a user can have got wrong. `load` then brings TensorFlow and the
    weights into memory, with the first sample at the latest.

    Args:
      model_name, models_dir: as in command_line.choose_model.
      seed: of the random draws; None is a new one.
      batch_size: samples made side by side; None is what default_batch_size says.
      length: tokens in a sample; None is n_ctx, or half of it with `prompted`.
      temperature, top_k, top_p: as in settings.Sampling.
      device: as in device.choose_device.
      dtype: what to compute in: float32, tf32 or bfloat16.
      prompted: whether contexts are longer than `<|endoftext|>`.
    Raises: UserError
    """

    def __init__(
        self,
        *,
        model_name: str | None,
        models_dir: str,
        seed: int | None,
        batch_size: int | None,
        length: int | None,
        temperature: float,
        top_k: int,
        top_p: float,
        device: str,
        dtype: str = "float32",
        prompted: bool = False,
    ):
        check_device(device)
        self.folder, self._notice = choose_model(model_name, models_dir)
        self.hparams = checkpoint.load_hparams(self.folder)
        if length is None:
            length = self.hparams.n_ctx // (2 if prompted else 1)
        self.sampling = Sampling(length, temperature, top_k, top_p)
        self.sampling.check(self.hparams)
        require("batch_size", batch_size, batch_size is None or batch_size >= 1, "at least 1")
        self.batch_size = batch_size or default_batch_size(self.hparams)
        self.seed = seed
        require("dtype", dtype, dtype in DTYPES, f"one of {', '.join(DTYPES)}")
        self.device, self.dtype = device, dtype
        self._weights = checkpoint.find_weights(self.folder, self.hparams)
        self.encoder = checkpoint.load_encoder(self.folder, self.hparams)
        self.end = self.encoder.encoder[END_OF_TEXT]
        self._session: Any = None
        self._decoder: Any = None

    def settings(self) -> dict[str, Any]:
        """All that a sample depends on, beside its number and its prompt."""
        return {
            "model": self.folder.name,
            "weights": checkpoint.fingerprint(self._weights),
            "seed": self.seed,
            **vars(self.sampling),
            "dtype": self.dtype,
        }

    def context(self, prompt: str | None) -> list[int]:
        """Token ids of a prompt; None is the beginning of a text.

        Raises: UserError if it is empty, or too long for n_ctx.
        """
        ids = [self.end] if prompt is None else self.encoder.encode(prompt)
        self.sampling.check_context(len(ids), self.hparams)
        return ids

    def load(self) -> None:
        """Bring TensorFlow and the weights into memory; say on stderr where they run."""
        tf = import_tensorflow()
        if self._notice:
            print(self._notice, file=sys.stderr)
        config, processor = choose_device(self.device, tf)
        if not processor.startswith("GPU"):
            self._check_memory()
        if self.device == "auto":
            print(f"running on {processor}", file=sys.stderr)
        if self.seed is None:
            self.seed = random.randrange(2**31)
        tf.config.experimental.enable_tensor_float_32_execution(self.dtype == "tf32")
        self._session = tf.Session(graph=tf.Graph(), config=config)
        self._build()
        with self._session.graph.as_default():
            checkpoint.restore(self._session, self._weights)

    def change(self, **settings: Any) -> None:
        """Change the seed, or how tokens are sampled. Raises: UserError, and changes nothing."""
        seed = settings.pop("seed", self.seed)
        sampling = replace(self.sampling, **settings)
        sampling.check(self.hparams)
        self.seed, self.sampling = seed, sampling

    def _build(self) -> None:
        """Build the graph. The settings of sampling are placeholders, so one graph serves all."""
        import tensorflow.compat.v1 as tf

        import decoder
        import sample

        with self._session.graph.as_default():
            self._options = {
                "temperature": tf.placeholder(tf.float32, []),
                "top_k": tf.placeholder(tf.int32, []),
                "top_p": tf.placeholder(tf.float32, []),
            }
            self._decoder = decoder.Decoder(
                self.hparams,
                functools.partial(sample.sample_token, **self._options),
                self.batch_size,
                dtype="bfloat16" if self.dtype == "bfloat16" else "float32",
            )

    def pieces(
        self, contexts: Sequence[list[int]], numbers: Sequence[int], stop_at_end: bool = False
    ) -> Iterator[list[list[int]]]:
        """Continue contexts, and hand out tokens as they are made.

        Args:
          contexts: at most batch_size lists of token ids, of any lengths.
          numbers: of the samples; seed and number fix a sample's random draws.
          stop_at_end: end a sample before its first `<|endoftext|>`, and all when each has ended.
        Yields: for each context the ids that come next; none once the sample has ended.
        """
        if self._session is None:
            self.load()
        decoder, n_context = self._decoder, max(map(len, contexts))
        rows = [*contexts, *[contexts[0]] * (self.batch_size - len(contexts))]
        feed = {
            decoder.context: [row + [0] * (n_context - len(row)) for row in rows],
            decoder.lengths: [len(row) for row in rows],
            decoder.seed: self.seed,
            decoder.numbers: [*numbers, *[numbers[0]] * (self.batch_size - len(numbers))],
            decoder.stop: self.end if stop_at_end else -1,
            **{x: getattr(self.sampling, name) for name, x in self._options.items()},
        }
        over = [False] * len(contexts)
        done = cache_length = 0
        while done < self.sampling.length and not all(over):
            if done and cache_length < n_context + done:
                cache_length = min(n for n in decoder.cache_lengths if n >= n_context + done)
                self._run(decoder.grow, {decoder.cache_length: cache_length})
            step = {**feed, decoder.end: min(done + PIECE, self.sampling.length)}
            made, tokens = self._run(decoder.decode if done else decoder.prefill, step)
            if (tokens[:, done:made] < 0).any():
                raise DamagedModelError(
                    f"{self._weights}: the weights are damaged: they give logits that are not "
                    "numbers; download or train the model again"
                )
            piece = []
            for i, new in enumerate(tokens[: len(contexts), done:made].tolist()):
                ids = [] if over[i] else new
                if stop_at_end and self.end in ids:
                    ids, over[i] = ids[: ids.index(self.end)], True
                piece.append(ids)
            yield piece
            done = made

    def _run(self, fetches: Any, feed: dict[Any, Any]) -> Any:
        import tensorflow.compat.v1 as tf

        try:
            return self._session.run(fetches, feed)
        except (tf.errors.ResourceExhaustedError, MemoryError):
            raise self._out_of_memory() from None

    def _check_memory(self) -> None:
        """Raise UserError if the samples cannot fit in memory: Linux would kill the process."""
        sample = sample_bytes(self.hparams, self.sampling.length)
        needed = 4 * self.hparams.n_params() + self.batch_size * sample
        if needed > memory_bytes():
            raise self._out_of_memory()

    def _out_of_memory(self) -> UserError:
        return UserError(
            f"out of memory with {self.batch_size} samples side by side; try a smaller "
            "--batch_size, or a shorter --length"
        )


def default_batch_size(hparams: HParams) -> int:
    """How many samples a quarter of the machine's memory holds, at most MAX_BATCH."""
    sample = sample_bytes(hparams, hparams.n_ctx)
    return max(1, min(MAX_BATCH, memory_bytes() // 4 // sample))


def sample_bytes(hparams: HParams, slots: int) -> int:
    """What a sample of so many positions takes while it is made."""
    # Keys and values of each layer and position, and a few rows of logits while drawing.
    return 4 * (2 * hparams.n_layer * slots * hparams.n_embd + 8 * hparams.n_vocab)


def memory_bytes() -> int:
    """What the machine has, or the container that this runs in."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows
        memory = 8 << 30
    for limit in CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is none
            memory = min(memory, int(limit.read_text(encoding="utf-8")))
    return memory
