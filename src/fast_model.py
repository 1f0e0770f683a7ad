"""Parts of model.py in forms that are faster when a whole text is evaluated at once."""

import numpy as np
import tensorflow.compat.v1 as tf

import model

N_BLOCKS = 4  # of 2, 4 and 8, the fastest at 512 positions


def causal_attention(q, k, v):
    """Attention of each position to itself and to all earlier ones.

    The queries are computed in blocks, each with the keys up to its own last position. So 3/8 of
    the scores are never computed.

    Args:
      q, k, v: float [batch, n_head, sequence, head_dim]
    Returns: float [batch, n_head, sequence, head_dim]
    """
    sequence = tf.shape(q)[2]
    edges = sequence * np.arange(N_BLOCKS + 1, dtype=np.int32) // N_BLOCKS
    ends, sizes = tf.unstack(edges[1:]), edges[1:] - edges[:-1]
    biases = tf.split(model.causal_bias(sequence, sequence, dtype=q.dtype), sizes, axis=0)
    parts = []
    for part, bias, end in zip(tf.split(q, sizes, axis=2), biases, ends, strict=True):
        parts.append(model.attention(part, k[:, :, :end], v[:, :, :end], bias[:, :end]))
    return tf.concat(parts, axis=2)


def gelu(x):
    """The values of model.gelu: 0.5 (1 + tanh(y)) is sigmoid(2 y). Two passes over x less."""
    c = 2 * np.sqrt(2 / np.pi)
    return x * tf.sigmoid(x * (c + c * 0.044715 * tf.square(x)))


def attend(qkv, past):
    """What model.attn takes as `attend`, for texts that nothing precedes or follows."""
    return causal_attention(*model.split_heads(qkv)), None
