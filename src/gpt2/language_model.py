"""A model in memory: text in, text or scores out. Scripts and notebooks use LanguageModel.

A sample's random numbers do not depend on the batch that it is generated in. Its logits can, in the
last digit, because matrix products add in another order at another batch size. Where two tokens are
nearly equally likely, that changes the choice; benchmarks/bench_batch_agreement.py measures how
often.
"""

import inspect
import math
import random
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import engine
from gpt2.decoding import Decoding, Request
from gpt2.memory import default_batch_size, sample_bytes, weight_bytes
from gpt2.model_session import ModelSession
from gpt2.sample_text import SampleText, stop_strings
from gpt2.typed_value import typed_value
from gpt2.windows import EvaluationOptions
from sampling_settings import Sampling
from user_error import UserError, require

if TYPE_CHECKING:  # slow imports are in the functions that need them
    import numpy as np

    from encoder import Encoder
    from gpt2.scorer import TokenScore

Strategy = Callable[[Any, Any, Any, Any], Any]
WORTH_COMPILING = 192  # steps of the loop; for fewer, compiling costs more than it gains
MOST_STRATEGIES = 16  # each needs 40 to 55 MB
OPTIONS = {"length": int, "temperature": float, "top_k": int, "top_p": float}


def load(
    model: str | Path | None = None, *, models_dir: str | Path = "models", **options: Any
) -> "LanguageModel":
    """Open a model. The weights are read when they are first needed.

    Args:
      model: name of a folder in models_dir, such as "117M" or "1M"; the path of a folder; or
        owner/name on Hugging Face, if it is downloaded. None is 117M, or 1M if 117M is not there.
      models_dir: relative to the working directory, or else to the repository.
      options: the other arguments of LanguageModel.
    Raises: UserError if the folder is missing or its files do not fit together.
    """
    _check_names(options, [*inspect.signature(LanguageModel).parameters][2:-1])
    loaded = LanguageModel(model_name=model, models_dir=models_dir, **options)
    _ = loaded.encoder  # report a broken vocabulary at once
    return loaded


def _check_names(given: Iterable[str], known: Collection[str]) -> None:
    """Raise UserError for a keyword that is not known."""
    for name in given:
        if name not in known:
            raise UserError(f"unknown option {name!r}; known are {', '.join(known)}")


class LanguageModel(AbstractContextManager["LanguageModel"]):
    """A GPT-2 model that continues text and scores it.

    >>> lm = load("1M", seed=1)
    >>> lm.generate("ROMEO:", length=10, top_k=40)
    ['\\nDid you wast thou speak of me']
    >>> lm.generate(["KING", "To be, or not to be"], length=5, temperature=0)
    [' RICHARD III:\\nMy', 'd,\\nAnd I']
    >>> "".join(lm.stream("KING", length=5, temperature=0))
    ' RICHARD III:\\nMy'
    >>> token = lm.score("To be, or not to be")[-1]
    >>> token.text, token.rank, round(token.logprob, 2), round(token.entropy, 2)
    (' be', 1, -2.52, 4.79)
    >>> lm.logits([[50, 51, 52]]).shape
    (1, 3, 1280)
    >>> lm.close()

    Several models can be open, and TensorFlow's eager execution stays as it is. The first long text
    of a batch size, or the first with a seed, can take some seconds more, for compiling. A short
    text does not wait for that. A new temperature, top_k, top_p, seed or length compiles nothing.

    Several threads may use a model: calls of `generate`, `score` and `logits` wait for each other,
    and streams take turns.

    Args:
      model_name, models_dir, device, dtype: as in ModelSession.
      seed: of the random numbers; None draws one. Sample i of a seed is always the same.
      batch_size: the most samples that are generated together; None lets the memory decide.
      length, temperature, top_k, top_p: as in Sampling; `generate` and `stream` can
        override them. A length of None is half of n_ctx.
    Attributes:
      session: the ModelSession.
      folder, hparams, encoder, end_of_text, device, dtype: of the session; folder is its path.
      seed, batch_size: as above, or what was chosen instead of None.
      seed_is_given: whether the seed was not drawn.
      sampling: length, temperature, top_k, top_p.
    Raises: UserError, here and in all methods, if an argument or a file is wrong.
    """

    def __init__(
        self,
        *,
        model_name: str | Path | None = None,
        models_dir: str | Path = "models",
        seed: int | None = None,
        batch_size: int | None = None,
        length: int | None = None,
        temperature: float = 1,
        top_k: int = 0,
        top_p: float = 1,
        device: str = "auto",
        dtype: str = "float32",
        **unknown: Any,
    ):
        _check_names(unknown, [*inspect.signature(LanguageModel).parameters][:-1])
        self.session = ModelSession(model_name, models_dir, device=device, dtype=dtype)
        self.folder, self.hparams = self.session.folder.path, self.session.hparams
        self.device, self.dtype = device, dtype
        self.sampling = Sampling(self.hparams.n_ctx // 2)
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        self.sampling = self._sampling(options | ({} if length is None else {"length": length}))
        batch_size = typed_value("batch_size", batch_size, int | None)
        require("batch_size", batch_size, batch_size is None or batch_size >= 1, "at least 1")
        self.batch_size = batch_size or default_batch_size(self.hparams, dtype)
        self._batch_size_is_given = batch_size is not None
        self._start_over(typed_value("seed", seed, int | None))
        self._strategies: set[Strategy] = set()  # that have a graph

    @property
    def encoder(self) -> "Encoder":
        return self.session.encoder

    @property
    def end_of_text(self) -> int:
        return self.session.end_of_text

    # Text

    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        nsamples: int = 1,
        *,
        seed: int | None = None,
        stop_at_end: bool = True,
        stop: str | Sequence[str] = (),
        choose: Strategy | None = None,
        **options: Any,
    ) -> list[str]:
        """Continue one prompt or several.

        Args:
          prompt: a text, or texts of any lengths; None starts a text.
          nsamples: continuations of each prompt.
          seed: makes the call repeatable. Without it each call gives other samples.
          stop_at_end: end a sample before its first `<|endoftext|>`.
          stop: a text, or several, before which a sample ends.
          choose: a sampling strategy of your own, see strategies.py, in place of temperature, top_k
            and top_p. Its graph is built at its first use and kept, so define it once.
          options: length, temperature, top_k, top_p instead of the model's.
        Returns: the continuations without the prompts; those of a prompt follow each other.
        """
        prompts = [prompt] if prompt is None or isinstance(prompt, str) else prompt
        if not isinstance(prompts, Sequence):
            kind = type(prompt).__name__
            raise UserError(f"a prompt must be a string or a list of strings, got {kind}")
        nsamples = typed_value("nsamples", nsamples, int)
        require("nsamples", nsamples, nsamples >= 1, "at least 1")
        stops, sampling = stop_strings(stop), self._sampling(options, choose)
        contexts = [self.context(prompt, sampling) for prompt in prompts]
        n_batches = math.ceil(nsamples * len(contexts) / self.batch_size)
        request = self._request(sampling, seed, stop_at_end, n_batches * sampling.length)
        texts: list[str] = []
        with self.session.alone():
            first = self._take_numbers(nsamples * len(prompts)) if seed is None else 1
            samples = [
                (context, first + i * len(prompts) + j)
                for j, context in enumerate(contexts)
                for i in range(nsamples)
            ]
            for start in range(0, len(samples), self.batch_size):
                batch, indices = zip(*samples[start : start + self.batch_size], strict=True)
                request = request._replace(contexts=batch, sample_indices=indices)
                # Powers of two, as each size is compiled once.
                size = min(self.batch_size, 1 << (len(batch) - 1).bit_length())
                pieces = self._texts(request, size, stops, choose)
                texts += map("".join, zip(*pieces, strict=True))
        return texts

    def stream(
        self,
        prompt: str | None = None,
        *,
        seed: int | None = None,
        stop_at_end: bool = True,
        stop: str | Sequence[str] = (),
        choose: Strategy | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Continue a prompt, and yield the text as it is generated.

        Other texts may be generated before this one has ended. It then goes on: its tokens so far
        are evaluated again, which takes a moment and, like another batch size, can change the last
        digit of a logit.

        Args: as in `generate`.
        """
        stops, sampling = stop_strings(stop), self._sampling(options, choose)
        request = self._request(sampling, seed, stop_at_end, sampling.length)
        request = request._replace(contexts=[self.context(prompt, sampling)], at_once=True)
        if seed is None:
            with self.session.alone():
                request = request._replace(sample_indices=[self._take_numbers(1)])
        return (text for (text,) in self._texts(request, 1, stops, choose))

    def score(
        self,
        text: str,
        *,
        top: int = 0,
        window: int | None = None,
        stride: int | None = None,
        **unknown: Any,
    ) -> "list[TokenScore]":
        """How likely the model finds each token of a text of any length.

        Args:
          top: most likely tokens to list as the `alternatives` of each token.
          window: tokens that the model sees at once; None is n_ctx.
          stride: tokens from one window to the next; None is `window`.
        """
        from gpt2.scorer import Scorer

        _check_names(unknown, ["top", "window", "stride"])
        text, top = typed_value("text", text, str), typed_value("top", top, int)
        window = typed_value("window", window, int | None)
        stride = typed_value("stride", stride, int | None)
        options = EvaluationOptions(window=window, stride=stride, top=top)
        with self.session.alone():
            return list(Scorer(self.session, options).score_text([text]))

    def logits(self, tokens: Any) -> "np.ndarray":
        """Unnormalised log-probabilities of the token after each one.

        Args:
          tokens: ids, int [batch, sequence].
        Returns: float32 [batch, sequence, n_vocab]
        """
        import numpy as np

        n_vocab, n_ctx = self.hparams.n_vocab, self.hparams.n_ctx
        try:
            ids = np.asarray(tokens)
        except ValueError:  # rows of several lengths
            ids = np.zeros(0)
        if ids.ndim != 2 or ids.dtype.kind not in "iu" or not ids.size:
            raise UserError("tokens must be ids, integers of shape [batch, sequence]")
        if ids.shape[1] > n_ctx:
            raise UserError(f"{ids.shape[1]} tokens are too many: n_ctx is {n_ctx}")
        if ids.min() < 0 or ids.max() >= n_vocab:
            raise UserError(f"token ids must be from 0 to {n_vocab - 1}")
        with self.session.alone():
            placeholder, logits = self.session.build("logits", self._build_logits)
            return self.session.run(logits, {placeholder: ids})

    # Life

    def expect(self, nsamples: int) -> None:
        """Make the batches no larger than this, unless the batch size or the seed was given."""
        if not self._batch_size_is_given and self._may_be_quick():
            self.batch_size = min(self.batch_size, nsamples)

    def prepare(self, at_once: bool = False) -> None:
        """Read the weights and build the graph for batch_size now, not at the first use.

        Args: at_once, as in `stream_tokens`.
        """
        self._decoding(self.batch_size, at_once and self._may_be_quick(self.sampling.length))

    def prepare_in_background(self, failed: Callable[[], object] = lambda: None) -> None:
        """Prepare and compile in a thread. What needs the model waits for it.

        Args: failed, as in ModelSession.load_in_background.
        """

        def work() -> None:
            quick = self._may_be_quick(self.sampling.length)
            self._decoding(self.batch_size, quick).compile(self.sampling)

        self.session.load_in_background(work, failed)

    def close(self) -> None:
        """Free the model's memory. The object cannot be used afterwards."""
        self.session.close()

    def __reduce__(self) -> NoReturn:
        raise UserError("a model cannot be pickled or copied; load it where it is used")

    def __exit__(self, *error: object) -> None:
        self.close()

    # Settings

    def settings(self) -> dict[str, Any]:
        """All that a sample depends on, except its number and its prompt."""
        return {
            "model": self.folder.name,
            "fingerprint": self.session.fingerprint(),
            "seed": self.seed,
            **vars(self.sampling),
            "dtype": self.dtype,
        }

    def change(self, **settings: Any) -> None:
        """Change the seed, or how tokens are sampled. Raises: UserError, and changes nothing.

        A seed starts over: the next sample is its first.
        """
        seed = typed_value("seed", settings.get("seed"), int | None)
        new = {name: value for name, value in settings.items() if name != "seed"}
        self.sampling = self._sampling(new)
        if "seed" in settings:
            self._start_over(seed)

    def context(self, prompt: str | None, sampling: Sampling | None = None) -> list[int]:
        """Token ids of a prompt; None is the beginning of a text.

        Raises: UserError if it is empty, or too long for n_ctx.
        """
        text = typed_value("a prompt", prompt, str | None)
        ids = [self.end_of_text] if text is None else self.encoder.encode(text)
        (sampling or self.sampling).check_context(len(ids), self.hparams)
        return ids

    def stream_tokens(
        self,
        contexts: Sequence[list[int]],
        sample_indices: Sequence[int],
        stop_at_end: bool = False,
        at_once: bool = False,
    ) -> Iterator[list[list[int]]]:
        """Continue contexts in a batch of batch_size, and yield tokens as they are generated.

        Args:
          contexts: at most batch_size lists of token ids, of any lengths.
          sample_indices: of the samples; seed and index determine a sample's random numbers.
          stop_at_end: end a sample before its first `<|endoftext|>`, and all when each has ended.
          at_once: someone waits for each token, so that each is yielded soon.
        Yields: for each context the ids that come next; none once the sample has ended.
        """
        n_steps = self.sampling.length if at_once else sys.maxsize
        request = self._request(self.sampling, None, stop_at_end, n_steps)
        request = request._replace(contexts=contexts, sample_indices=sample_indices)
        return self._chunks(request._replace(at_once=at_once), self.batch_size)

    # Internals

    def _request(
        self, sampling: Sampling, seed: int | None, stop_at_end: bool, n_steps: int
    ) -> Request:
        """A request with a seed, or else the model's. Raises: UserError.

        Few steps do not wait for the compiler, unless a seed is given: an engine can differ from
        another in the last digit, and a sample of a seed stays the same.
        """
        given = typed_value("seed", seed, int | None)
        stop = self.end_of_text if typed_value("stop_at_end", stop_at_end, bool) else -1
        quick = given is None and self._may_be_quick(n_steps)
        return Request(sampling, self.seed if given is None else given, stop, quick=quick)

    def _texts(
        self, request: Request, batch_size: int, stops: Sequence[str], choose: Strategy | None
    ) -> Iterator[list[str]]:
        """As `_chunks`, but yield texts, which end before a stop string."""
        rows = [SampleText(self.encoder, stops) for _ in request.contexts]
        for chunk in self._chunks(request, batch_size, choose):
            yield [row.add(ids) for row, ids in zip(rows, chunk, strict=True)]
            if all(row.stopped for row in rows):
                return
        yield [row.add([], final=True) for row in rows]

    def _chunks(
        self, request: Request, batch_size: int, choose: Strategy | None = None
    ) -> Iterator[list[list[int]]]:
        """Yield for each sample the tokens of a run; none once the sample has ended."""
        decoding = self._decoding(batch_size, request.quick, choose)
        finished = [False] * len(request.contexts)
        for tokens in decoding.generate(request):
            if (tokens < 0).any():
                wrong = "choose gave an id outside the vocabulary"
                raise UserError(wrong) if choose else self.session.damaged()
            chunk = tokens.tolist()
            for i, ids in enumerate(chunk):
                if finished[i]:
                    ids.clear()
                elif request.stop in ids:
                    del ids[ids.index(request.stop) :]
                    finished[i] = True
            yield chunk
            if all(finished):
                return

    def _may_be_quick(self, n_steps: int = 0) -> bool:
        """Whether compiling is not worth it for these steps, and no seed or engine was given."""
        return n_steps <= WORTH_COMPILING and not self.seed_is_given and not engine.chosen()

    def _decoding(
        self, batch_size: int, quick: bool = False, choose: Strategy | None = None
    ) -> Decoding:
        if choose is not None and choose not in self._strategies:
            if len(self._strategies) == MOST_STRATEGIES:
                raise UserError(
                    f"{MOST_STRATEGIES} strategies have a graph, and no more can: load the model "
                    "again, and define a strategy once, not anew for each call"
                )
            self._strategies.add(choose)
        sample = sample_bytes(self.hparams, self.sampling.length)
        return self.session.build(
            ("decoding", batch_size, quick, choose),
            lambda: self._build_decoding(batch_size, quick, choose),
            n_bytes=weight_bytes(self.hparams, batch_size, self.dtype) + batch_size * sample,
        )

    def _build_decoding(self, batch_size: int, quick: bool, own: Strategy | None) -> Decoding:
        import tensorflow.compat.v1 as tf

        import decoder
        import sample
        import strategies

        settings = {
            "temperature": tf.placeholder(tf.float32, []),
            "top_k": tf.placeholder(tf.int32, []),
            "top_p": tf.placeholder(tf.float32, []),
        }
        known = [i in self.encoder.decoder for i in range(self.hparams.n_vocab)]
        own = own and strategies.checked(own, self.hparams.n_vocab)

        def choose(logits: Any, uniform: Any, *text: Any) -> Any:
            if not all(known):  # other trainers add rows that are not tokens
                logits = tf.where_v2(known, logits, tf.cast(-math.inf, logits.dtype))
            if own:
                return own(logits, uniform, *text)
            return sample.sample_token(logits, uniform, **settings)

        dtype = self.session.compute_dtype
        made = decoder.Decoder(self.hparams, choose, batch_size, dtype, True, quick)
        return Decoding(self.session, made, settings)

    def _build_logits(self) -> tuple[Any, Any]:
        import tensorflow.compat.v1 as tf

        import decoder

        ids = tf.placeholder(tf.int32, [None, None])
        return ids, decoder.text_logits(self.hparams, decoder.text_states(self.hparams, ids))

    def _sampling(self, options: dict[str, Any], choose: Strategy | None = None) -> Sampling:
        _check_names(options, OPTIONS)
        if choose is not None and (unused := sorted(options.keys() - {"length"})):
            raise UserError(f"{unused[0]} has no effect with choose, which decides alone")
        values = {name: typed_value(name, value, OPTIONS[name]) for name, value in options.items()}
        sampling = replace(self.sampling, **values)
        sampling.check(self.hparams)
        return sampling

    def _start_over(self, seed: int | None) -> None:
        """Start with the first sample of a seed; None draws one."""
        self.seed_is_given = seed is not None
        self.seed = random.randrange(2**31) if seed is None else seed
        self._n_taken = 0

    def _take_numbers(self, n: int) -> int:
        """The number of the first of the next n samples."""
        self._n_taken += n
        return self._n_taken - n + 1
