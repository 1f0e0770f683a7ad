"""Generates the tokens of texts with a decoder, some tokens in each run of the session."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sampling_settings import Sampling

if TYPE_CHECKING:
    import numpy as np

    from gpt2.model_session import ModelSession

CHUNK_TOKENS = 16  # generated in one run: what a stream yields, and how soon Ctrl-C takes effect
CHUNK_SECONDS = 0.2  # that a run takes at most while someone waits, unless one token takes longer


class Request(NamedTuple):
    """What to generate, and how."""

    sampling: Sampling
    seed: int
    stop: int = -1  # token that finishes a sample; when all are finished, no more are generated
    at_once: bool = False  # someone waits for each token, so runs are short
    quick: bool = False  # nothing is compiled for this text
    contexts: Sequence[list[int]] = ()  # token ids, of any lengths; no more than a batch
    sample_indices: Sequence[int] = (1,)  # one for each context


class Decoding:
    """Generates tokens for one batch size, in the graph and session of a model.

    Args:
      session: of the model. Its graph must be the default graph.
      decoder: decoder.Decoder of the batch size.
      settings: scalar placeholders: temperature, top_k, top_p.
    """

    def __init__(self, session: "ModelSession", decoder: Any, settings: dict[str, Any]):
        self.decoder = decoder
        self._session, self._settings = session, settings
        self._user: object = None  # whose samples are in the decoder's state

    def generate(self, request: Request) -> "Iterator[np.ndarray]":
        """Continue contexts, and yield the tokens of each run.

        Another text may begin in between, here or in another thread. This one then goes on: its
        tokens so far are evaluated again, as a context.

        Yields: int32 [len(contexts), tokens]; strategies.NO_TOKEN ends a sample.
        """
        n_done, length = 0, request.sampling.length
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
        n_context = max(map(len, request.contexts))
        lengths = decoder.cache_lengths(n_context + n_wanted - 1)  # the last token is never fed
        me, n_done, held = object(), 0, 0
        chunk = 1 if at_once and not n_before else CHUNK_TOKENS

        def length_for(n_tokens: int) -> int:
            return next(n for n in lengths if n >= n_context + n_tokens)

        def begin() -> "np.ndarray":
            nonlocal n_done, held
            self._user = me
            held = length_for(1) if n_wanted > 1 else 0
            feed[decoder.cache_length] = held
            n_done, tokens = self._session.run(decoder.prefill, {**feed, decoder.end: 1})
            return tokens[:n_rows]

        def go_on() -> "np.ndarray":
            nonlocal n_done, held, chunk
            began, before = time.monotonic(), n_done
            if held < (length := length_for(n_done)):
                self._session.run(decoder.grow, {decoder.cache_length: length})
                held = length
            end = min(n_done + chunk, n_wanted)
            n_done, tokens = self._session.run(decoder.decode, {**feed, decoder.end: end})
            if at_once:
                seconds = (time.monotonic() - began) / max(1, n_done - before)
                chunk = max(1, min(CHUNK_TOKENS, int(CHUNK_SECONDS / seconds)))
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

    def compile(self, sampling: Sampling) -> None:
        """Run the loop with each length of the caches that a sample needs after one token."""
        feed = self._feed(Request(sampling, seed=0, contexts=[[0]]))
        with self._session.alone():
            for length in self.decoder.cache_lengths(sampling.length):
                feed[self.decoder.cache_length] = length
                self._session.run(self.decoder.prefill, {**feed, self.decoder.end: 1})
                self._session.run(self.decoder.decode, {**feed, self.decoder.end: 2})
                if length >= sampling.length:
                    break

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
