"""Generates tokens with the compiled loop, or with another one until that is compiled.

XLA takes seconds to compile the loop, once for each length of the caches. If someone waits for a
text, its tokens come from the loop of TensorFlow's own operations until the compiled loop is ready.
Both work on the same state, so one continues where the other stopped.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt2.background import Task
from gpt2.tensorflow_session import interrupted_afterwards
from sampling_settings import Sampling

if TYPE_CHECKING:
    import numpy as np

    from gpt2.model_session import ModelSession

CHUNK_TOKENS = 16  # generated in one run: what a stream yields, and how soon Ctrl-C takes effect
CHUNK_SECONDS = 0.2  # that a run takes at most while someone waits, unless one token takes longer
BUSY_SECONDS = 0.1  # the same while a thread compiles, as that may suddenly need all cores
FIRST_TOKENS = 64  # of a text someone waits for, which a compiler would only slow down
WORTH_COMPILING = 128  # tokens to come; for less, compiling costs more than it gains
MANY_TOKENS = 512  # of short texts, one after the other, for which compiling does pay


class Request(NamedTuple):
    """What to generate, and how."""

    sampling: Sampling
    seed: int
    stop: int = -1  # token that finishes a sample; when all are finished, no more are generated
    at_once: bool = False  # someone waits for each token, so runs are short
    either: bool = False  # take tokens from the other loop while one is compiled
    contexts: Sequence[list[int]] = ([0],)  # token ids, of any lengths; no more than a batch
    sample_indices: Sequence[int] = (1,)  # one for each context


class Decoding:
    """Generates tokens for one batch size, in the graph and session of a model.

    Args:
      session: of the model. Its graph must be the default graph.
      decoder: decoder.Decoder of the batch size.
      settings: scalar placeholders: temperature, top_k, top_p.
    Attributes:
      decoder: as above.
      compiled: the cache lengths for which the loop is compiled, as far as this is known.
      compiling: the last task that compiled, or None.
    """

    def __init__(self, session: "ModelSession", decoder: Any, settings: dict[str, Any]):
        self.decoder = decoder
        self.compiled: set[int] = set()
        self.compiling: Task | None = None
        self._session, self._settings = session, settings
        self._ready: Task | None = None  # builds the loop that comes first
        self._user: object = None  # whose samples are in the decoder's state
        self._n_short = 0  # tokens, of all short texts so far

    def generate(self, request: Request) -> "Iterator[np.ndarray]":
        """Continue contexts, and yield the tokens of each run.

        Another text may begin in between, here or in another thread. This one then goes on: its
        tokens so far are evaluated again, as a context.

        Yields: int32 [len(contexts), tokens]; strategies.NO_TOKEN ends a sample.
        """
        n_done, length = 0, request.sampling.length
        if length <= WORTH_COMPILING:
            self._n_short += length
        while n_done < length:
            for tokens in self._until_interrupted(request, n_done):
                if not tokens.size:  # every sample has ended
                    return
                n_done += tokens.shape[1]
                pairs = zip(request.contexts, tokens.tolist(), strict=True)
                request = request._replace(contexts=[row + new for row, new in pairs])
                yield tokens

    def _until_interrupted(self, request: Request, n_before: int) -> "Iterator[np.ndarray]":
        """As `generate`, but end when the decoder's state holds another text.

        Args: n_before, how many tokens of the samples the contexts contain.
        """
        import numpy as np

        decoder, at_once, n_rows = self.decoder, request.at_once, len(request.contexts)
        feed = self._feed(request) | {decoder.n_before: n_before}
        n_wanted = request.sampling.length - n_before
        # The caches hold the first token at this length.
        first = max(map(len, request.contexts)) + 1
        last = first + n_wanted - 1
        me, n_done, held = object(), 0, 0
        chunk = 1 if at_once and not n_before else CHUNK_TOKENS

        def begin() -> "np.ndarray":
            nonlocal n_done, held
            self._user = me
            held = feed[decoder.cache_length] = (self._cache_lengths(range(first, last)) or [0])[0]
            n_done, tokens = self._session.run(decoder.prefill, {**feed, decoder.end: 1})
            if self._ready is not None:
                self._ready.wait()  # or the pause after the first token would be longer
            return tokens[:n_rows]

        def go_on() -> "np.ndarray":
            nonlocal n_done, held, chunk
            began, before = time.monotonic(), n_done
            positions = range(first - 1 + n_done, last)
            length = self._cache_lengths(positions)[0]
            if held < length:
                self._session.run(self._fetch("grow"), {decoder.cache_length: length})
                held = length
            if request.either and self.decoder.engine.compiled and length not in self.compiled:
                is_long = n_before + n_done >= FIRST_TOKENS and len(positions) > WORTH_COMPILING
                if is_long or self._n_short > MANY_TOKENS:
                    self._compile(feed, positions)
                loop = self._fetch("decode_uncompiled")
            else:
                loop = self._fetch("decode")
            end = min(n_done + chunk, n_wanted)
            n_done, tokens = self._session.run(loop, {**feed, decoder.end: end})
            if at_once:
                seconds = (time.monotonic() - began) / max(1, n_done - before)
                busy = self.compiling is not None and self.compiling.is_alive()
                most = (BUSY_SECONDS if busy else CHUNK_SECONDS) / seconds
                chunk = max(1, min(CHUNK_TOKENS, int(most)))
            return tokens[:n_rows, before:n_done]

        with self._session.alone():
            tokens = begin()
            if n_before and n_done < n_wanted:  # the next interruption may come at once
                tokens = np.concatenate([tokens, go_on()], axis=1)
        yield tokens
        while n_done < n_wanted:
            with self._session.alone():
                if self._user is not me:
                    return
                tokens = go_on()
            yield tokens

    def get_ready(self, sampling: Sampling, either: bool) -> None:
        """Build the loop that comes first, while weights are read and a text is evaluated."""
        import tensorflow.compat.v1 as tf

        if not either:
            self._fetch("decode")
            return
        # A run with `end` 0 only prepares, which shortens the pause after the first token.
        feed = self._feed(Request(sampling, seed=0))

        def work() -> None:
            with contextlib.suppress(tf.errors.FailedPreconditionError):  # no weights yet
                self._session.run(self._fetch("decode_uncompiled"), feed)

        self._session.will_run(self.decoder.prefill)  # so that this need not wait for the loop
        self._ready = Task(work)

    def compile_ahead(self, sampling: Sampling) -> None:
        """Begin to compile for a context of one token and a sample after it."""
        feed = self._feed(Request(sampling, seed=0))
        self._compile(feed, range(2, 1 + sampling.length))

    def _feed(self, request: Request) -> dict[Any, Any]:
        """A value for each placeholder; 0 for `end` and `cache_length`."""
        decoder, contexts, indices = self.decoder, request.contexts, request.sample_indices
        n_context = max(map(len, contexts))
        n_padding = decoder.context.shape.as_list()[0] - len(contexts)
        rows = [*contexts, *[contexts[0]] * n_padding]
        return {
            decoder.context: [row + [0] * (n_context - len(row)) for row in rows],
            decoder.lengths: [len(row) for row in rows],
            decoder.seed: request.seed,
            decoder.sample_indices: [*indices, *[indices[0]] * n_padding],
            decoder.stop: request.stop,
            decoder.end: 0,
            decoder.cache_length: 0,
            **{self._settings[name]: getattr(request.sampling, name) for name in self._settings},
        }

    def _cache_lengths(self, positions: range) -> list[int]:
        """The lengths that the caches will have while these positions are filled."""
        if not positions:
            return []
        lengths = self.decoder.cache_lengths(positions[-1])
        reached = next(n for n in lengths if n >= positions[-1])
        return [n for n in lengths if positions[0] <= n <= reached]

    def _fetch(self, name: str) -> Any:
        """The decoder's attribute of this name; one thread builds it, and the others wait."""
        if name not in vars(self.decoder):
            with self._session.tracing, interrupted_afterwards():
                getattr(self.decoder, name)
        return getattr(self.decoder, name)

    def _compile(self, feed: dict[Any, Any], positions: range) -> None:
        """Compile the loop in the background, for all cache lengths that have these positions.

        There is one task at a time, and none after one that failed: `compiled` then stays as it is.
        """
        task = self.compiling
        may_begin = task is None or not (task.is_alive() or task.error)
        missing = [n for n in self._cache_lengths(positions) if n not in self.compiled]
        if self.decoder.engine.compiled and may_begin and missing:
            self.compiling = Task(lambda: self._compile_for(missing, feed))

    def _compile_for(self, lengths: list[int], feed: dict[Any, Any]) -> None:
        import tensorflow.compat.v1 as tf

        in_this_thread = tf.RunOptions(inter_op_thread_pool=-1)
        if self._ready is not None:
            self._ready.wait()
        # Build all that will be run, and run once what must begin at once later, to do nothing.
        with self._session.tracing:
            _, decode, grow = self.decoder.compile, self.decoder.decode, self.decoder.grow
        self._session.run(decode, feed)
        self._session.run(grow, {self.decoder.cache_length: 0})
        for length in lengths:
            step = {**feed, self.decoder.cache_length: length}
            self._session.run(self.decoder.compile, step, options=in_this_thread)
            self.compiled.add(length)
