"""From logits to text: temperature, top-k, top-p, and the sampling loop.

Sources: top-k, "Hierarchical Neural Story Generation" (arXiv:1805.04833); top-p, "The Curious
Case of Neural Text Degeneration" (arXiv:1904.09751).

`sample_by_definition` is the loop in its simplest form. `sample_sequence` gives the same tokens
with a KV cache (decoder.py), so that a token does not compute the whole text again.

The settings `length`, `temperature`, `top_k` and `top_p` are numbers or scalar tensors, such as
placeholders. Numbers are checked before the graph is built, tensors when it runs.
"""

import tensorflow.compat.v1 as tf

import decoder
import fast_sample
import model
import strategies
from sampling_settings import Sampling, assertions
from user_error import UserError


def sample_by_definition(hparams, context, uniform, length, choose):
    """Continue each context by `length` tokens: int32 [batch, context + length].

    Args:
      context: int32 [batch, context]; uniform: float32 [batch, at least length], in [0, 1).
      length: int.
      choose: picks a token for each row; see strategies.py.
    """
    tokens = context
    for i in range(length):
        logits = model.model(hparams, tokens, reuse=tf.AUTO_REUSE)["logits"][:, -1]
        token = choose(
            logits, uniform[:, i], tokens, tf.fill(tf.shape(tokens)[:1], tokens.shape[1])
        )
        tokens = tf.concat([tokens, token[:, None]], axis=1)
    return tokens


def top_k_logits(logits, k):
    """Mask all but the k largest logits, and those equal to the k-th.

    >>> top_k_logits(tf.constant([[1.0, 3.0, 2.0]]), 2).numpy().tolist()
    [[-10000000000.0, 3.0, 2.0]]

    Args:
      logits: float [batch, n_vocab]
      k: how many to keep, an int or int32 []; 0 keeps all.
    Returns: float [batch, n_vocab]; masked entries are -1e10.
    """
    if tf.get_static_value(k) == 0:
        return logits
    # Faithful: -1e10, not infinity.
    return fast_sample.mask_below(logits, fast_sample.kth_largest(logits, k), -1e10)


def top_p_logits(logits, p):
    """Mask all but the nucleus: the smallest set of tokens whose total probability reaches p.

    >>> print(top_p_logits(tf.math.log([[0.3, 0.5, 0.05, 0.15]]), 0.9).numpy().round(1))
    [[-1.2e+00 -7.0e-01 -1.0e+10 -1.9e+00]]

    Args:
      logits: float [batch, n_vocab], unnormalised log-probabilities.
      p: from 0 to 1, a number or float []. 1 keeps all; 0 keeps the most likely token, as in the
        original. (Some forks read 0 as "off".)
    Returns: float [batch, n_vocab]; masked entries are -1e10.
    """
    if tf.get_static_value(p) == 1:
        return logits
    return _mask_outside_nucleus(logits, p, -1e10)


def _mask_outside_nucleus(logits, p, masked):
    """Float [batch, n_vocab]; if `p` is 1, `logits` as they are."""

    def search():
        # Differs: the token that crosses p is kept, so that the set reaches p.
        kept = fast_sample.nucleus(model.softmax(tf.cast(logits, tf.float32)), p)
        return tf.where_v2(kept, logits, tf.cast(masked, logits.dtype))

    p = tf.cast(p, tf.float32)
    return tf.ensure_shape(tf.cond(p >= 1, lambda: logits, search), logits.shape)


def sample_token(logits, uniform, temperature=1, top_k=0, top_p=1):
    """Sample a token for each row, by inverting the cumulative distribution.

    With probabilities 1/4 and 3/4, uniform numbers below 1/4 give token 0:

    >>> logits = tf.math.log([[1.0, 3.0], [1.0, 3.0]])
    >>> sample_token(logits, tf.constant([0.2, 0.3])).numpy().tolist()
    [0, 1]

    Args:
      logits: float [batch, n_vocab]
      uniform: float32 [batch], random numbers in [0, 1).
      temperature, top_k, top_p: as in sample_sequence.
    Returns: int32 [batch]; -1 where the logits are not numbers, as with damaged weights.
    """
    temperature, logits = tf.cast(temperature, tf.float32), tf.cast(logits, tf.float32)

    def draw(x):
        x -= tf.reduce_max(x, axis=-1, keepdims=True)
        x /= tf.maximum(temperature, fast_sample.TINY)  # which leaves the maximum at 0
        p = model.softmax(_mask_outside_nucleus(x, top_p, float("-inf")))
        return fast_sample.inverse_cdf(p, uniform)

    token = tf.cond(
        tf.equal(temperature, 0) | tf.equal(top_k, 1),
        lambda: tf.argmax(logits, axis=-1, output_type=tf.int32),
        lambda: fast_sample.draw_from_top_k(logits, top_k, draw),
    )
    # A NaN or an infinity is in the sum, too; -inf only excludes a token.
    are_numbers = tf.reduce_sum(logits, axis=-1) < float("inf")
    return tf.ensure_shape(tf.where_v2(are_numbers, token, strategies.NO_TOKEN), logits.shape[:1])


def sample_sequence(
    *,
    hparams,
    length,
    start_token=None,
    batch_size=None,
    context=None,
    temperature=1,
    top_k=0,
    top_p=1,
    choose=None,
):
    """Continue each context by `length` sampled tokens.

    Args:
      hparams: HParams
      length: tokens to sample, from 0 to n_ctx; context + length - 1 must not exceed n_ctx.
      start_token: id that makes up the context of every sample, in place of `context`.
      batch_size: number of samples; needed with start_token.
      context: int32 [batch, context], token ids to continue.
      temperature: divides the logits; 0 takes the most likely token.
      top_k: sample among the k most likely tokens; 0 among all.
      top_p: sample among the most likely tokens that together reach this probability.
      choose: a strategy of your own, in place of these three; see strategies.py.
    Returns: int32 [batch, context + length]
    Raises: UserError (a ValueError) if a number is out of range. A tensor that is out of range
      raises tf.errors.InvalidArgumentError with the same message when the graph runs, and so do
      weights that give logits that are not numbers.
    """
    settings = Sampling(length, temperature, top_k, top_p)
    if (start_token is None) == (context is None):
        raise UserError("give either start_token or context")
    if context is None and batch_size is None:
        raise UserError("start_token needs batch_size")

    def by_settings(logits, uniform, *text):
        return sample_token(logits, uniform, temperature, top_k, top_p)

    with tf.name_scope("sample_sequence"):
        checks = assertions(settings, hparams)
        if context is None:
            context = tf.fill([batch_size, 1], start_token)
        context = tf.convert_to_tensor(context, tf.int32)
        n_context = tf.shape(context)[1]
        message = f"context and length together exceed n_ctx = {hparams.n_ctx}:"
        with tf.control_dependencies(checks):
            fits = n_context + tf.maximum(length, 1) - 1 <= hparams.n_ctx
            fits = tf.debugging.Assert(fits, [message, n_context, length])
        with tf.control_dependencies([fits]):
            context = tf.identity(context)
        strategy = strategies.checked(choose, hparams.n_vocab) if choose else by_settings
        uniform = tf.random.uniform([tf.shape(context)[0], hparams.n_ctx])
        tokens = decoder.generate(hparams, strategy, context, uniform, length)
        message = "no next token: the logits are not numbers, or choose gave an id out of range"
        exist = tf.debugging.Assert(tf.reduce_all(tokens >= 0), [message])
        with tf.control_dependencies([exist]):
            return tf.identity(tokens)
