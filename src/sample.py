"""From the model's predictions to text: temperature, top-k, top-p, and the sampling loop.

Sources: top-k, "Hierarchical Neural Story Generation" (arXiv:1805.04833); top-p, "The Curious
Case of Neural Text Degeneration" (arXiv:1904.09751).
"""

import tensorflow.compat.v1 as tf

import model
from settings import Sampling, UserError


def top_k_logits(logits, k):
    """Mask all but the k largest; what ties with the k-th stays too.

    Args:
      logits: float [batch, n_vocab]
      k: how many to keep; 0 keeps all.
    Returns: float [batch, n_vocab]; masked entries are -1e10.
    """
    if k == 0:
        return logits
    values, _ = tf.nn.top_k(logits, k=k)
    return _mask_below(logits, values[:, -1:])


def top_p_logits(logits, p):
    """Mask all but the smallest set of most likely tokens whose probability reaches p.

    Args:
      logits: float [batch, n_vocab], unnormalised log-probabilities.
      p: probability to reach, in (0, 1]; 1 keeps all.
    Returns: float [batch, n_vocab]; masked entries are -1e10.
    """
    if p >= 1:
        return logits
    ordered = tf.sort(logits, direction="DESCENDING", axis=-1)
    before = tf.cumsum(model.softmax(ordered), axis=-1, exclusive=True)
    # Differs: the token that crosses p is kept, so that the set reaches p.
    kept = tf.where(before < p, ordered, tf.fill(tf.shape(ordered), ordered.dtype.max))
    return _mask_below(logits, tf.reduce_min(kept, axis=-1, keepdims=True))


def _mask_below(logits, smallest):
    return tf.where(logits < smallest, tf.fill(tf.shape(logits), -1e10), logits)


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
):
    """Continue each context by `length` sampled tokens.

    Args:
      hparams: HParams
      length: tokens to sample, from 1 to n_ctx; context + length - 1 must not exceed n_ctx.
      start_token: id that makes up the context of every sample, in place of `context`.
      batch_size: number of samples; needed with start_token.
      context: int32 [batch, context], token ids to continue.
      temperature: divides the logits; 0 takes the most likely token.
      top_k: sample among the k most likely tokens; 0 among all.
      top_p: sample among the most likely tokens that together reach this probability.
    Returns: int32 [batch, context + length]
    Raises: UserError (a ValueError) if a setting is out of range.
    """
    Sampling(length, temperature, top_k, top_p).check(hparams)
    if (start_token is None) == (context is None):
        raise UserError("give either start_token or context")
    if context is None:
        if batch_size is None:
            raise UserError("start_token needs batch_size")
        context = tf.fill([batch_size, 1], start_token)

    def step(tokens, past=None):
        output = model.model(hparams, tokens, past=past, reuse=tf.AUTO_REUSE)
        return output["logits"][:, -1, :], output["present"]

    def draw(logits):
        if temperature == 0:  # Differs: the original divides by it.
            return tf.argmax(logits, axis=-1, output_type=tf.int32)[:, None]
        logits = logits / tf.cast(temperature, logits.dtype)
        logits = top_p_logits(top_k_logits(logits, top_k), top_p)
        return tf.random.categorical(logits, 1, dtype=tf.int32)

    def body(past, last, output):
        logits, present = step(last, past)
        token = draw(logits)
        return tf.concat([past, present], axis=-2), token, tf.concat([output, token], axis=1)

    with tf.name_scope("sample_sequence"):
        logits, past = step(context)
        token = draw(logits)
        shape = model.past_shape(hparams=hparams, batch_size=batch_size)
        _, _, output = tf.while_loop(
            lambda *_: True,
            body,
            [past, token, tf.concat([context, token], axis=1)],
            shape_invariants=[
                tf.TensorShape(shape),
                tf.TensorShape([batch_size, 1]),
                tf.TensorShape([batch_size, None]),
            ],
            maximum_iterations=length - 1,
            back_prop=False,
        )
        return output
