"""From the model's predictions to text: temperature, top-k, top-p, and the sampling loop.

Sources: top-k, "Hierarchical Neural Story Generation" (arXiv:1805.04833); top-p, "The Curious
Case of Neural Text Degeneration" (arXiv:1904.09751).
"""

import functools
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

import model
from hparams import Sampling, UserError

try:
    # Private, and a tenth faster than what is public.
    from tensorflow.compiler.tf2xla.python.xla import dynamic_update_slice
except ImportError:
    dynamic_update_slice = None

GROUP = 32  # tokens of which `top_k_logits` looks at the largest first
BLOCK = 256  # tokens whose probabilities are summed before `draw` looks at each


def top_k_logits(logits, k):
    """Mask all but the k largest; what ties with the k-th stays too.

    Args:
      logits: float [batch, n_vocab]
      k: how many to keep; 0 keeps all.
    Returns: float [batch, n_vocab]; masked entries are -1e10.
    """
    if k == 0:
        return logits
    if 2 * k < logits.shape[-1] // GROUP:
        # XLA sorts all it is given. The k largest lie in the groups of the k largest maxima.
        groups = _split(logits, GROUP, pad_with=logits.dtype.min)
        _, best = tf.nn.top_k(tf.reduce_max(groups, axis=2), k=k)
        candidates = tf.reshape(tf.gather(groups, best, batch_dims=1), [-1, k * GROUP])
    else:
        candidates = logits
    values, _ = tf.nn.top_k(candidates, k=k)
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
    kept = tf.where_v2(before < p, ordered, ordered.dtype.max)
    return _mask_below(logits, tf.reduce_min(kept, axis=-1, keepdims=True))


def _mask_below(logits, smallest):
    return tf.where_v2(logits < smallest, tf.cast(-1e10, logits.dtype), logits)


def _split(x, size, *, pad_with):
    """[batch, n] -> [batch, ceil(n / size), size]"""
    n = x.shape[-1]
    n_groups = -(-n // size)
    x = tf.pad(x, [[0, 0], [0, n_groups * size - n]], constant_values=pad_with)
    return tf.reshape(x, [-1, n_groups, size])


def draw(logits, uniform, sampling):
    """Draw a token for each row by one random number: the token where the cumulative probability
    passes it.

    Args:
      logits: float [batch, n_vocab]
      uniform: float32 [batch], in [0, 1).
      sampling: Sampling
    Returns: int32 [batch]
    """
    if sampling.temperature == 0 or sampling.top_k == 1:
        return tf.argmax(logits, axis=-1, output_type=tf.int32)
    logits = tf.cast(logits, tf.float32) / sampling.temperature
    logits = top_p_logits(top_k_logits(logits, sampling.top_k), sampling.top_p)
    p = _split(model.softmax(logits), BLOCK, pad_with=0)
    # First the block, then the token in it: two short sums in place of one over n_vocab.
    block, rest = _pass(tf.reduce_sum(p, axis=2), uniform)
    token, _ = _pass(tf.gather(p, block, batch_dims=1), rest)
    return block * BLOCK + token


def _pass(p, uniform):
    """Where the running sum of `p` [batch, n] passes the share `uniform` [batch] of its total;
    and which share of that entry lies below the mark."""
    sums = tf.cumsum(p, axis=1)
    mark = uniform * sums[:, -1]
    i = tf.reduce_sum(tf.cast(sums <= mark[:, None], tf.int32), axis=1)
    size, upto = tf.gather(p, i, batch_dims=1), tf.gather(sums, i, batch_dims=1)
    share = (mark - (upto - size)) / size
    return i, tf.clip_by_value(share, 0, 1 - 2**-23)


def prefill(hparams, context, lengths, *, dtype=tf.float32):
    """Evaluate contexts in one pass.

    Args:
      context: int32 [batch, context]; a row ends in padding where its length is less.
      lengths: int32 [batch]
      dtype: to compute in.
    Returns:
      dtype [batch, n_vocab], logits of each row's next token.
      Keys and values of each layer, two of dtype [batch * n_head, context, head_dim].
      The model's weights as tensors of dtype, by the names of their variables.
    """
    weights = {}

    def read(getter, name, *args, **kwargs):
        weights[name] = tf.cast(tf.convert_to_tensor(getter(name, *args, **kwargs)), dtype)
        return weights[name]

    n_context = tf.shape(context)[1]
    bias = model.causal_bias(n_context, n_context, dtype=dtype)
    empty = model.Cache(None, None, lambda _, new: new, bias)
    with tf.variable_scope("model", reuse=tf.AUTO_REUSE, custom_getter=read):
        h, caches = model.transformer(
            hparams, context, model.positions_for(context, 0), [empty] * hparams.n_layer
        )
        logits = model.predict(hparams, tf.gather(h, lengths - 1, batch_dims=1))
    return logits, [(cache.k, cache.v) for cache in caches], weights


class State(NamedTuple):
    """What the loop carries from one token to the next."""

    done: Any  # int32 [], tokens made so far
    token: Any  # int32 [batch], the last of them
    ended: Any  # bool [batch], whether `stop` was drawn
    caches: Any  # for each layer, keys and values, float [batch * n_head, slots, head_dim]


def begin(hparams, sampling, context, lengths, uniform, stop=-1, dtype=tf.float32):
    """Evaluate contexts and draw the first token. Args: as prefill and decode_loop.

    Returns: State with no room in its caches, and the weights as in prefill.
    """
    logits, caches, weights = prefill(hparams, context, lengths, dtype=dtype)
    token = draw(logits, uniform[:, 0], sampling)
    return State(tf.constant(1), token, tf.equal(token, stop), caches), weights


def is_compiled(batch_size):
    """Whether XLA is to compile the loop for so many samples; None is any number.

    On a CPU that is the faster way for a few. The caches of many XLA reads on one core, where the
    operations of TensorFlow itself use all.
    """
    return batch_size is None or batch_size < 16 or bool(tf.config.list_physical_devices("GPU"))


def rooms(hparams, batch_size):
    """How many slots the caches of a loop may have: a list of a few sizes, n_ctx the last.

    All of a cache is read for each token, in use or not; so it starts small and grows with its
    text. Where the loop is compiled, it is for each size anew: these are fewer, and fewest for a
    sample or two, where the weights are most of what is read.
    """
    if not is_compiled(batch_size):
        sizes = range(64, hparams.n_ctx, 64)
    elif batch_size in (1, 2):
        sizes = [256]
    else:
        # 576, not 512: XLA reads a head's keys on one core up to 512 positions, on all above.
        sizes = [128, 256, 576]
    return [size for size in sizes if size < hparams.n_ctx] + [hparams.n_ctx]


def in_blocks(w, n):
    """[1, nx, nf] -> [n, nx // n, nf] if n divides nx and is not 1, else [nx, nf].

    That is what model.product takes. To reshape in the loop would keep XLA from sharing the product
    among the cores.
    """
    if w.shape.ndims < 3:
        return w
    _, nx, nf = w.shape
    return tf.reshape(w, [n, nx // n, nf] if n > 1 and nx % n == 0 else [nx, nf])


def write_slot(x, value, slot, compiled):
    """`x` [n, slots, size] with `value` [n, 1, size] in `slot` (int32 []), written in place.

    Args:
      compiled: as is_compiled says. If not, `x` itself changes, and must not be a constant.
    """
    n, slots, size = model.shape_list(x)
    if not compiled:
        rows, i = tf.reshape(x, [n * slots, size]), tf.range(n) * slots + slot
        return tf.reshape(tf.raw_ops.InplaceUpdate(x=rows, i=i, v=value[:, 0]), [n, slots, size])
    if dynamic_update_slice is not None:
        return dynamic_update_slice(x, value, [0, slot, 0])
    i = tf.stack([tf.range(n), tf.fill([n], slot)], axis=1)
    return tf.tensor_scatter_nd_update(x, i, value[:, 0])


def with_room(caches, slots):
    """The same keys and values, in at least `slots` slots (int32 [])."""

    def pad(x):
        return tf.pad(x, [[0, 0], [0, tf.maximum(slots - tf.shape(x)[1], 0)], [0, 0]])

    return tf.nest.map_structure(pad, caches)


def decode_loop(
    hparams, sampling, weights, state, lengths, n_context, uniform, output, end, stop=-1
):
    """Sample one token after the other, to the end or until the caches are full.

    To be called in a tf.function; compiled, if the batch is one for which is_compiled says so.

    Args:
      weights: as prefill returns them.
      state: State
      lengths: int32 [batch], of the contexts; n_context: int32 [], the longest of them.
      uniform: float32 [batch, at least end], a random number for each token.
      output: int32 [batch, at least end], where the tokens go, each to its place.
      end: int32 [], how many tokens there shall be.
      stop: int32 [], a token that ends its sample; the loop ends with the last sample.
    Returns: State and output, as they are then.
    """
    slots = tf.shape(state.caches[0][0])[1]
    end = tf.minimum(end, slots - n_context + 1)  # the last token needs no slot
    batch = lengths.shape[0]
    blocks = 8 if batch == 1 else 1  # for one row, XLA multiplies blocks of a matrix faster
    weights = {name: in_blocks(w, blocks) for name, w in weights.items()}

    def read(getter, name, *args, **kwargs):
        return weights[name]

    def body(state, output):
        now = n_context + state.done - 1  # the slot of the token that is evaluated
        slot = tf.range(slots)
        in_use = (slot < lengths[:, None]) | ((slot >= n_context) & (slot <= now))
        bias = tf.cast(tf.where_v2(in_use, 0.0, -1e10), state.caches[0][0].dtype)
        bias = tf.repeat(bias[:, None], hparams.n_head, axis=0)
        write = functools.partial(write_slot, slot=now, compiled=is_compiled(batch))
        pasts = [model.Cache(k, v, write, bias) for k, v in state.caches]
        positions = lengths[:, None] + state.done - 1
        with tf.variable_scope("model", reuse=True, custom_getter=read):
            h, presents = model.transformer(hparams, state.token[:, None], positions, pasts)
            logits = model.predict(hparams, h[:, 0])
        token = draw(logits, tf.gather(uniform, state.done, axis=1), sampling)
        place = tf.range(tf.shape(output)[1])
        output = tf.where_v2(tf.equal(place, state.done), token[:, None], output)
        ended = state.ended | tf.equal(token, stop)
        return State(state.done + 1, token, ended, [(x.k, x.v) for x in presents]), output

    return tf.while_loop(
        lambda state, _: (state.done < end) & ~tf.reduce_all(state.ended), body, [state, output]
    )


def uniform_for(seed, numbers, length):
    """The random numbers of samples: those of a sample depend on the seed and its number alone.

    Args:
      seed: int64 []
      numbers: int64 [batch]
    Returns: float32 [batch, length], in [0, 1). Source: Philox, doi:10.1145/2063384.2063405.
    """

    def row(number):
        return tf.random.stateless_uniform([length], tf.stack([seed, number]), alg="philox")

    return tf.map_fn(row, numbers, fn_output_signature=tf.float32)


class Decoder:
    """Sampling in pieces: the session keeps the state of the loop between two runs of it.

    So text can be shown while it is made, or stopped. The caches stay where they are, and nothing
    is compiled again but for another number of slots.

    Args:
      hparams: HParams
      sampling: Sampling
      batch_size: samples side by side.
      dtype: to compute in.
      successor_of: None, or a Decoder of as many samples, whose memory this one takes over.
    Attributes:
      rooms: sizes that the caches may have, as the function of this name gives them.
    Attributes, for Session.run:
      state: State, of variables.
      context: placeholder int32 [batch, context]; rows end in padding where they are shorter.
      lengths: placeholder int32 [batch], of the contexts.
      seed, numbers: placeholders int64 [] and [batch], as in uniform_for.
      slots: placeholder int32 [], room for context and tokens.
      end, stop: placeholders int32 [], as in decode_loop.
      start: evaluates the contexts and makes the first token.
      grow: gives the caches `slots` slots; those they have stay. Needs only `slots`.
      advance: goes on to `end` tokens, or until the caches are full: context + tokens - 1 slots.
        Compiled anew for each number of slots. `start` and `advance` need all that `grow` does
        not, and give int32 [], how many tokens there are, and int32 [batch, ...], where those made
        in this run stand at their places.
    """

    def __init__(self, hparams, sampling, batch_size, dtype=tf.float32, successor_of=None):
        self.rooms = rooms(hparams, batch_size)
        self.context = tf.placeholder(tf.int32, [batch_size, None])
        self.lengths = tf.placeholder(tf.int32, [batch_size])
        self.seed = tf.placeholder(tf.int64, [])
        self.numbers = tf.placeholder(tf.int64, [batch_size])
        self.slots = tf.placeholder(tf.int32, [])
        self.end = tf.placeholder(tf.int32, [])
        self.stop = tf.placeholder(tf.int32, [])
        n_context = tf.reduce_max(self.lengths)
        uniform = uniform_for(self.seed, self.numbers, hparams.n_ctx)

        first, weights = begin(
            hparams, sampling, self.context, self.lengths, uniform, self.stop, dtype
        )
        # Each is assigned before it is read, and thus needs no initializer. They are in no
        # collection: a Saver of the graph's variables is to find the model's alone.
        old = successor_of and successor_of.state
        kept = self.state = old or tf.nest.map_structure(_unset_variable, first)
        with tf.control_dependencies(_assign_all(kept, first)):
            self.start = tf.identity(first.done), first.token[:, None]

        self.grow = tf.no_op()
        for cache in tf.nest.flatten(kept.caches):
            with tf.control_dependencies([self.grow]):  # one by one, so that all never exist twice
                larger = with_room(tf.identity(cache), self.slots)
                self.grow = cache.assign(larger, read_value=False)

        @tf.function(jit_compile=is_compiled(batch_size), autograph=False)
        def go_on(lengths, n_context, uniform, end, stop):
            state = tf.nest.map_structure(tf.identity, kept)
            output = tf.zeros(uniform.shape, tf.int32)
            state, output = decode_loop(
                hparams, sampling, weights, state, lengths, n_context, uniform, output, end, stop
            )
            _assign_all(kept, state)
            return state.done, output

        self.advance = go_on(self.lengths, n_context, uniform, self.end, self.stop)


def _unset_variable(like):
    return tf.Variable(
        initial_value=lambda: tf.zeros([size or 0 for size in like.shape], like.dtype),
        dtype=like.dtype,
        shape=like.shape,
        trainable=False,
        collections=[],
        use_resource=True,
        validate_shape=False,
    )


def _assign_all(variables, values):
    pairs = zip(tf.nest.flatten(variables), tf.nest.flatten(values), strict=True)
    return [variable.assign(value, read_value=False) for variable, value in pairs]


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
    sampling = Sampling(length, temperature, top_k, top_p)
    sampling.check(hparams)
    if (start_token is None) == (context is None):
        raise UserError("give either start_token or context")
    if context is None:
        if batch_size is None:
            raise UserError("start_token needs batch_size")
        context = tf.fill([batch_size, 1], start_token)

    with tf.name_scope("sample_sequence"):
        batch, n_context = model.shape_list(context)
        fits = tf.debugging.assert_less_equal(
            n_context + length - 1,
            hparams.n_ctx,
            message=f"context and length {length} together exceed n_ctx = {hparams.n_ctx}",
        )
        with tf.control_dependencies([fits] if fits is not None else []):
            context = tf.identity(context)
        lengths = tf.fill([batch], n_context)
        uniform = tf.random.uniform([batch, length])
        state, weights = begin(hparams, sampling, context, lengths, uniform)
        output = tf.concat([state.token[:, None], tf.zeros([batch, length - 1], tf.int32)], axis=1)

        @tf.function(jit_compile=is_compiled(context.shape[0]), autograph=False)
        def go_on(state, lengths, n_context, uniform, output):
            return decode_loop(
                hparams, sampling, weights, state, lengths, n_context, uniform, output, length
            )

        sizes = tf.constant(rooms(hparams, context.shape[0]))

        def advance(state, output):
            slots = tf.reduce_min(tf.boolean_mask(sizes, sizes >= n_context + state.done))
            state = state._replace(caches=with_room(state.caches, slots))
            return go_on(state, lengths, n_context, uniform, output)

        def any_size(x):
            return tf.TensorShape(
                [x.shape[0], None, *x.shape[2:]] if x.shape.ndims == 3 else x.shape
            )

        _, output = tf.while_loop(
            lambda state, _: state.done < length,
            advance,
            [state, output],
            shape_invariants=tf.nest.map_structure(any_size, [state, output]),
        )
        return tf.concat([context, output], axis=1)
