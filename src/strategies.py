"""How a token is chosen is up to the caller: a sampling strategy is a function of four tensors.

    choose(logits, uniform, tokens, lengths)  ->  int32 [batch], the next token of each text

  logits   float [batch, n_vocab], unnormalised log-probabilities
  uniform  float32 [batch], random numbers in [0, 1)
  tokens   int32 [batch, n], the texts so far, prompts included; each begins at index 0
  lengths  int32 [batch], how many tokens each text has; what comes after them means nothing

sample.sample_token is the one that the scripts use; it looks at logits and uniform only. A function
of your own is an argument of sample.sample_sequence, and of `generate` and `stream` of a loaded
model. It is called when a graph is built, so it must consist of TensorFlow's operations.
docs/how_it_works.md has examples.
"""

import tensorflow.compat.v1 as tf

from user_error import UserError

NO_TOKEN = -1  # in place of a token where none can be chosen; it ends the sample


def token_counts(tokens, lengths, n_vocab):
    """How often each token of the vocabulary is in each text: float32 [batch, n_vocab].

    >>> token_counts(tf.constant([[2, 0, 2, 9]]), tf.constant([3]), 4).numpy().tolist()
    [[1.0, 0.0, 2.0, 0.0]]

    Args: tokens, lengths: as a strategy gets them.
    """
    is_text = tf.range(tf.shape(tokens)[1]) < lengths[:, None]
    tokens = tf.where_v2(is_text, tf.maximum(tokens, 0), 0)
    return tf.raw_ops.DenseBincount(
        input=tokens, size=n_vocab, weights=tf.cast(is_text, tf.float32)
    )


def checked(choose, n_vocab):
    """The strategy `choose`, with NO_TOKEN for ids outside the vocabulary.

    Raises: UserError, when the graph is built, unless it gives one integer for each text.
    """

    def choose_and_check(logits, uniform, tokens, lengths):
        token = tf.convert_to_tensor(choose(logits, uniform, tokens, lengths))
        if not (token.dtype.is_integer and token.shape.is_compatible_with(lengths.shape)):
            found = f"{token.dtype.name} {token.shape}"
            raise UserError(f"choose must give integers of shape {lengths.shape}, got {found}")
        token = tf.ensure_shape(tf.cast(token, tf.int32), lengths.shape)
        return tf.where_v2((token >= 0) & (token < n_vocab), token, NO_TOKEN)

    return choose_and_check
