"""The transformer of GPT-2 as a TensorFlow graph.

Sources: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019);
"Attention Is All You Need" (arXiv:1706.03762); "Gaussian Error Linear Units" (arXiv:1606.08415).

Axes, by the same names everywhere:
  batch     texts that are computed together
  sequence  positions in a text; `past` positions come before them
  n_vocab, n_ctx, n_embd, n_head, n_layer   as in `HParams`
  head_dim  n_embd // n_head

The variable scopes below are the names in the released checkpoints, and thus fixed:
`model/wte`, `model/h0/attn/c_attn/w`, ... Each convolution of width 1 is a matrix product.

The examples in the docstrings run with eager execution on; in a graph, evaluate them in a session.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from hparams import HParams, default_hparams

__all__ = ["HParams", "default_hparams", "model", "past_shape"]


def shape_list(x):
    """The shape of `x` as a list: ints where the graph knows them, else scalar int32 tensors."""
    static = x.shape.as_list()
    dynamic = tf.unstack(tf.shape(x))
    return [dynamic[i] if size is None else size for i, size in enumerate(static)]


def softmax(x, axis=-1):
    """Probabilities along `axis` from unnormalised log-probabilities; shape and dtype of `x`.

    >>> softmax(tf.constant([0.0, 0.0])).numpy().tolist()
    [0.5, 0.5]
    """
    return tf.nn.softmax(x, axis=axis)


def gelu(x):
    """Gaussian error linear unit, elementwise. Source: arXiv:1606.08415, section 2.

    >>> print(gelu(tf.constant([-1.0, 0.0, 2.0])).numpy().round(3))
    [-0.159  0.     1.955]
    """
    # Faithful: the tanh form, not the exact one; the released weights were trained with it.
    return 0.5 * x * (1 + tf.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x * x * x)))


def norm(x, scope, *, axis=-1, epsilon=1e-5):
    """Layer normalisation: mean 0 and variance 1 along `axis`, then a learned gain and bias.

    Args:
      x: float [..., n_state]
      scope: variable scope; it holds `g` and `b`, both [n_state].
    Returns: float [..., n_state]. Source: arXiv:1607.06450.
    """
    with tf.variable_scope(scope):
        n_state = x.shape[-1]
        g = tf.get_variable("g", [n_state], initializer=tf.constant_initializer(1))
        b = tf.get_variable("b", [n_state], initializer=tf.constant_initializer(0))
        mean = tf.reduce_mean(x, axis=axis, keepdims=True)
        variance = tf.reduce_mean(tf.square(x - mean), axis=axis, keepdims=True)
        return (x - mean) * tf.rsqrt(variance + epsilon) * g + b


def split_states(x, n):
    """[..., n_state] -> [..., n, n_state // n]

    >>> split_states(tf.range(6), 2).numpy().tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    *start, m = shape_list(x)
    return tf.reshape(x, [*start, n, m // n])


def merge_states(x):
    """[..., n, m] -> [..., n * m]; the inverse of split_states.

    >>> merge_states(tf.constant([[0, 1, 2], [3, 4, 5]])).numpy().tolist()
    [0, 1, 2, 3, 4, 5]
    """
    *start, n, m = shape_list(x)
    return tf.reshape(x, [*start, n * m])


def linear(x, w, b, activation=None):
    """activation(x w + b), float [m, nf], for x [m, nx], w [1, nx, nf] and b [nf]."""
    y = tf.matmul(x, tf.squeeze(w, 0)) + b
    return activation(y) if activation else y


def conv1d(x, scope, nf, *, w_init_stdev=0.02, activation=None, linear=linear):
    """The same linear map at each position.

    Args:
      x: float [batch, sequence, nx]
      scope: variable scope; it holds `w` [1, nx, nf] and `b` [nf].
      nf: features out.
      w_init_stdev: standard deviation of the initial weights.
      activation: None, or a function that is applied to the result.
      linear: computes the map, as the function above does.
    Returns: float [batch, sequence, nf]
    """
    with tf.variable_scope(scope):
        *start, nx = shape_list(x)
        w = tf.get_variable(
            "w", [1, nx, nf], initializer=tf.random_normal_initializer(stddev=w_init_stdev)
        )
        b = tf.get_variable("b", [nf], initializer=tf.constant_initializer(0))
        return tf.reshape(linear(tf.reshape(x, [-1, nx]), w, b, activation), [*start, nf])


def attention_mask(nd, ns, *, dtype):
    """Which of `ns` positions the last `nd` of them attend to: themselves and those before.

    >>> attention_mask(2, 3, dtype=tf.int32).numpy().tolist()
    [[1, 1, 0], [1, 1, 1]]

    Returns: dtype [nd, ns] of ones and zeros; row i ends in nd - 1 - i zeros.
    """
    i = tf.range(nd)[:, None]
    j = tf.range(ns)
    return tf.cast(i >= j - ns + nd, dtype)


def attention(q, k, v, bias, matmul=tf.matmul):
    """Scaled dot-product attention: softmax(q kᵀ / sqrt(head_dim) + bias) v.

    Args:
      q: float [..., queries, head_dim]; k, v: float [..., keys, head_dim]
      bias: float, added to the scores [..., queries, keys]; -1e10 masks a key.
      matmul: what multiplies matrices, as tf.matmul does.
    Returns: float [..., queries, head_dim]
    """
    q *= tf.rsqrt(tf.cast(v.shape.as_list()[-1], q.dtype))
    return matmul(softmax(matmul(q, k, transpose_b=True) + bias), v)


def split_heads(qkv):
    """float [batch, sequence, 3, n_head, head_dim] -> 3 x [batch, n_head, sequence, head_dim]"""
    return tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]))


def causal_attention(qkv, past):
    """Attention of each position to itself and to all earlier ones, as in the paper.

    Args:
      qkv: float [batch, sequence, 3, n_head, head_dim], queries, keys and values.
      past: None, or keys and values of earlier positions, float
        [batch, 2, n_head, past, head_dim].
    Returns: float [batch, n_head, sequence, head_dim]; and the keys and values of these positions,
      float [batch, 2, n_head, sequence, head_dim].
    """
    q, k, v = split_heads(qkv)
    present = tf.stack([k, v], axis=1)
    if past is not None:
        past_k, past_v = tf.unstack(past, axis=1)
        k = tf.concat([past_k, k], axis=-2)
        v = tf.concat([past_v, v], axis=-2)
    nd, ns = shape_list(q)[-2], shape_list(k)[-2]
    return attention(q, k, v, causal_bias(nd, ns, dtype=q.dtype)), present


def attn(x, scope, n_state, *, past, hparams, attend=causal_attention, linear=linear):
    """Masked multi-head self-attention.

    Args:
      x: float [batch, sequence, n_embd]
      n_state: width of queries, keys and values; n_head divides it.
      past: what `attend` takes as `past`.
      attend: computes attention, as causal_attention does.
      linear: as in conv1d.
    Returns: float [batch, sequence, n_state]; and the second result of `attend`.
    """
    if x.shape.ndims != 3:
        raise ValueError(f"x must be [batch, sequence, n_embd], got shape {x.shape}")

    def merge_heads(x):  # [batch, n_head, sequence, head_dim] -> [batch, sequence, n_state]
        return merge_states(tf.transpose(x, [0, 2, 1, 3]))

    with tf.variable_scope(scope):
        c = conv1d(x, "c_attn", n_state * 3, linear=linear)
        a, present = attend(split_states(split_states(c, 3), hparams.n_head), past)
        return conv1d(merge_heads(a), "c_proj", n_state, linear=linear), present


def causal_bias(nd, ns, *, dtype):
    """Added to the scores to hide later positions: 0 where attention_mask is 1, else -1e10.

    Returns: dtype [nd, ns]
    """
    # Faithful: 1e10, not infinity.
    hidden = tf.cast(-1e10, dtype)
    return tf.where_v2(attention_mask(nd, ns, dtype=tf.bool), tf.zeros_like(hidden), hidden)


def mlp(x, scope, n_state, *, hparams, linear=linear):
    """Two linear maps with a GELU between: [batch, sequence, n_embd] -> n_state -> n_embd."""
    with tf.variable_scope(scope):
        h = conv1d(x, "c_fc", n_state, activation=gelu, linear=linear)
        return conv1d(h, "c_proj", x.shape[-1], linear=linear)


def block(x, scope, *, past, hparams, attend=causal_attention, linear=linear, select=lambda x: x):
    """One layer: attention, then the MLP, each on the normalised input and added to the input.

    Args: as in `attn`, and
      select: takes from `x` the positions that `attend` gives a result for; by default all.
    Returns: as in `attn`; the result is as wide as `x`.
    """
    with tf.variable_scope(scope):
        nx, how = x.shape[-1], {"hparams": hparams, "linear": linear}
        a, present = attn(norm(x, "ln_1"), "attn", nx, past=past, attend=attend, **how)
        # `linear` may give a narrower type than that of the sums.
        x = select(x) + tf.cast(a, x.dtype)
        m = mlp(norm(x, "ln_2"), "mlp", nx * 4, **how)
        return x + tf.cast(m, x.dtype), present


def past_shape(*, hparams, batch_size=None, sequence=None):
    """The shape of `past` and `present`: keys and values of each layer and head.

    >>> past_shape(hparams=HParams(n_embd=12, n_head=3, n_layer=2), batch_size=1, sequence=5)
    [1, 2, 2, 3, 5, 4]
    """
    head_dim = hparams.n_embd // hparams.n_head
    return [batch_size, hparams.n_layer, 2, hparams.n_head, sequence, head_dim]


def expand_tile(value, size):
    """Repeat `value` along a new first axis of `size`.

    >>> expand_tile([7, 8], 2).numpy().tolist()
    [[7, 8], [7, 8]]
    """
    value = tf.convert_to_tensor(value, name="value")
    return tf.tile(tf.expand_dims(value, axis=0), [size] + [1] * value.shape.ndims)


def positions_for(tokens, past_length):
    """Position of each of `tokens` [batch, sequence] when `past_length` tokens come before.

    >>> positions_for(tf.zeros([1, 3], tf.int32), 4).numpy().tolist()
    [[4, 5, 6]]
    """
    batch_size, n_steps = shape_list(tokens)
    return expand_tile(past_length + tf.range(n_steps), batch_size)


def transformer(hparams, X, positions, pasts, block=block, gather=tf.gather):
    """Embeddings, all blocks and the last normalisation: everything before the prediction.

    Args:
      X, positions: int32 [batch, sequence], token ids and their positions.
      pasts: for each layer, what `attn` takes as `past`.
      block: computes a layer, as the function above does.
      gather: reads rows of wte, as tf.gather does.
    Returns: float [batch, sequence, n_embd]; and for each layer the second result of `attn`.
    """
    wpe = tf.get_variable(
        "wpe",
        [hparams.n_ctx, hparams.n_embd],
        initializer=tf.random_normal_initializer(stddev=0.01),
    )
    # As tensors: TensorFlow copies a variable at each read once tf.gather has read it.
    wte, wpe = tf.convert_to_tensor(token_embedding(hparams)), tf.convert_to_tensor(wpe)
    h = tf.cast(gather(wte, X), wpe.dtype) + tf.gather(wpe, positions)
    presents = []
    for layer, past in enumerate(pasts):
        h, present = block(h, f"h{layer}", past=past, hparams=hparams)
        presents.append(present)
    return norm(h, "ln_f"), presents


def token_embedding(hparams):
    """wte, float [n_vocab, n_embd]: from tokens at the input, and to tokens at the output."""
    return tf.get_variable(
        "wte",
        [hparams.n_vocab, hparams.n_embd],
        initializer=tf.random_normal_initializer(stddev=0.02),
    )


def predict(hparams, h, matmul=tf.matmul):
    """Logits float [..., n_vocab] of the next token from `h` float [..., n_embd]."""
    *start, nx = shape_list(h)
    logits = matmul(tf.reshape(h, [-1, nx]), token_embedding(hparams), transpose_b=True)
    return tf.reshape(logits, [*start, hparams.n_vocab])


def model(hparams, X, past=None, scope="model", reuse=False):
    """Predict each next token.

    Args:
      hparams: HParams
      X: int32 [batch, sequence], token ids.
      past: None, or `present` of earlier calls, concatenated along the sequence axis:
        float [batch, n_layer, 2, n_head, past, head_dim].
      scope, reuse: as in tf.variable_scope.
    Returns: a dict of
      present: float [batch, n_layer, 2, n_head, sequence, head_dim], keys and values of X.
      logits: float [batch, sequence, n_vocab], unnormalised log-probabilities of the next token.
    """
    with tf.variable_scope(scope, reuse=reuse):
        positions = positions_for(X, 0 if past is None else tf.shape(past)[-2])
        pasts = [None] * hparams.n_layer if past is None else tf.unstack(past, axis=1)
        h, presents = transformer(hparams, X, positions, pasts)
    with tf.variable_scope(scope, reuse=True):
        return {"present": tf.stack(presents, axis=1), "logits": predict(hparams, h)}
