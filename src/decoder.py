"""Autoregressive decoding with a KV cache: prefill, then one token at a time.

How a token is chosen is up to the caller: see strategies.py.
"""

import functools
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

import engines
import fast_model
import kv_cache
import model
import narrow_rows
import narrow_weights
from hparams import HParams
from strategies import NO_TOKEN


class Batch(NamedTuple):
    """What stays the same from one token to the next."""

    lengths: Any  # int32 [batch], of the contexts
    n_context: Any  # int32 [], the longest of them
    uniform: Any  # float32 [batch, n_ctx], a random number for each token


class State(NamedTuple):
    """What the loop carries from one token to the next."""

    n_done: Any  # int32 [], tokens generated so far
    token: Any  # int32 [batch], the last of them
    finished: Any  # bool [batch], whether the stop token was generated, or none could be
    text: Any  # int32 [batch, n_ctx + 1], contexts and what was generated, without gaps
    caches: Any  # a KVCache for each layer


def shared_block(hparams, attend, linear=model.linear):
    """A `block` for model.transformer: model.block as a function that all layers call.

    Building the graph then takes about as long for many layers as for one.

    Args: attend, linear: as in model.block.
    """
    variables = _variables_of_a_layer(hparams.n_embd, hparams.n_head)

    @tf.function(autograph=False)
    def layer(x, past, weights):
        def read(getter, name, *args, **kwargs):
            return weights[name.removeprefix("h/")]

        with tf.variable_scope(tf.VariableScope(None, custom_getter=read)):
            return model.block(x, "h", past=past, hparams=hparams, attend=attend, linear=linear)

    def block(x, scope, *, past, hparams):
        with tf.variable_scope(scope):
            weights = {name: tf.get_variable(name, **how) for name, how in variables.items()}
        return layer(x, past, weights)

    return block


def create_variables(hparams):
    """Create the model's variables, so that they can be read while the graph is built."""
    variables = _variables_of_a_layer(hparams.n_embd, hparams.n_head)

    def block(x, scope, *, past, hparams):
        with tf.variable_scope(scope):
            for name, how in variables.items():
                tf.get_variable(name, **how)
        return x, None

    with tf.variable_scope("model", reuse=tf.AUTO_REUSE):
        one = tf.zeros([1, 1], tf.int32)
        model.transformer(hparams, one, one, [None] * hparams.n_layer, block)


@functools.cache
def _variables_of_a_layer(n_embd, n_head):
    """The arguments of tf.get_variable for the variables of model.block, by name."""
    hparams = HParams(n_embd=n_embd, n_head=n_head)
    variables = {}

    def record(getter, name, shape, initializer, **kwargs):
        variables[name.removeprefix("h/")] = {"shape": shape, "initializer": initializer}
        return tf.zeros(shape)

    def attend(qkv, past):  # has no variables, so it need not be built
        return model.split_heads(qkv)[0], None

    with tf.Graph().as_default(), tf.variable_scope("", custom_getter=record):
        x = tf.zeros([1, 1, hparams.n_embd])
        model.block(x, "h", past=None, hparams=hparams, attend=attend)
    return variables


def prefill(hparams, context, lengths, *, dtype="float32"):
    """Evaluate contexts in one pass.

    Args:
      context: int32 [batch, context]; shorter rows are padded at the end.
      lengths: int32 [batch], without the padding.
      dtype: to compute in, float32 or bfloat16.
    Returns:
      float [batch, n_vocab], logits of each row's next token.
      A KVCache for each layer, `context` positions long.
      The model's weights as tensors of narrow_weights.weight_dtype, by variable name.
    """
    weights = {}

    def read(getter, name, *args, **kwargs):
        stored = tf.convert_to_tensor(getter(name, *args, **kwargs))
        weights[name] = tf.cast(stored, narrow_weights.weight_dtype(name, dtype))
        return weights[name]

    last = lengths[:, None] - 1
    linear = engines.text_linear
    shared = shared_block(hparams, kv_cache.starting_attention(), linear)

    def block(x, scope, **how):
        if scope != f"h{hparams.n_layer - 1}":
            return shared(x, scope, **how)
        # Of the last layer, only the cache and what predicts the next token are used later.
        attend = kv_cache.starting_attention(last)
        select = functools.partial(tf.gather, indices=last, batch_dims=1)
        return model.block(x, scope, **how, attend=attend, linear=linear, select=select)

    with tf.variable_scope("model", reuse=tf.AUTO_REUSE, custom_getter=read):
        positions = model.positions_for(context, 0)
        pasts = [None] * hparams.n_layer
        h, caches = model.transformer(hparams, context, positions, pasts, block)
        logits = model.predict(hparams, h[:, 0], engines.text_predict)
    caches = tf.nest.map_structure(lambda x: tf.cast(x, h.dtype), caches)  # as the loop writes
    return logits, caches, weights


def text_states(hparams, X):
    """What model.transformer computes for whole texts X, int32 [batch, sequence], faster."""
    block = shared_block(hparams, fast_model.attend, engines.text_linear)
    with tf.variable_scope("model", reuse=tf.AUTO_REUSE):
        positions = model.positions_for(X, 0)
        h, _ = model.transformer(hparams, X, positions, [None] * hparams.n_layer, block)
    return h


def text_logits(hparams, h, matmul=engines.text_predict):
    """model.predict, for `h` of `text_states`."""
    with tf.variable_scope("model", reuse=tf.AUTO_REUSE):
        return model.predict(hparams, h, matmul)


def first_token(hparams, choose, context, batch, stop=NO_TOKEN, dtype="float32"):
    """Prefill, and choose the first token. Returns: State, and the weights as in `prefill`."""
    logits, caches, weights = prefill(hparams, context, batch.lengths, dtype=dtype)
    text = tf.pad(context, [[0, 0], [0, hparams.n_ctx + 1 - tf.shape(context)[1]]])
    text = tf.ensure_shape(text, [context.shape[0], hparams.n_ctx + 1])
    token = choose(logits, batch.uniform[:, 0], text, batch.lengths)
    text = _append(text, batch.lengths, token)
    return State(tf.constant(1), token, _is_last(token, stop), text, caches), weights


def decode_loop(hparams, choose, weights, engine, batch, state, end, stop=NO_TOKEN):
    """Generate one token after the other, until `end` or until the caches are full.

    Args:
      weights: as returned by `prefill`, after engine.prepare.
      engine: an engines.Engine; if it is compiled, this is called in a tf.function that XLA
        compiles.
      batch, state: Batch, State.
      end: int32 [], number of tokens to reach.
      stop: int32 [], token that finishes its sample; the loop ends when all are finished.
    Returns: the new State.
    """
    cache_length = tf.shape(state.caches[0].k)[1]
    end = tf.minimum(end, cache_length - batch.n_context + 1)  # the last token is never fed back

    def read(getter, name, *args, **kwargs):
        return weights[name]

    def next_logits(state):
        position = batch.n_context + state.n_done - 1  # in the caches, of the last token
        indices = tf.range(cache_length)
        lengths = batch.lengths[:, None]
        in_use = (indices < lengths) | ((indices >= batch.n_context) & (indices <= position))
        bias = tf.cast(tf.where_v2(in_use, 0.0, -1e10), state.caches[0].k.dtype)
        bias = tf.repeat(bias[:, None], hparams.n_head, axis=0)
        attend = kv_cache.cached_attention(bias, position, engine)
        linear, predict = engine.products(position)
        if engine.shares_block:
            block = shared_block(hparams, attend, linear)
        else:
            block = functools.partial(model.block, attend=attend, linear=linear)
        with tf.variable_scope("model", reuse=True, custom_getter=read):
            tokens = tf.maximum(state.token, 0)[:, None]  # NO_TOKEN is none
            positions = lengths + state.n_done - 1
            pasts, gather = state.caches, narrow_rows.gather
            h, caches = model.transformer(hparams, tokens, positions, pasts, block, gather)
            return model.predict(hparams, h[:, 0], predict), caches

    def body(state):
        logits, caches = next_logits(state)
        lengths = batch.lengths + state.n_done
        uniform = tf.gather(batch.uniform, state.n_done, axis=1)
        token = choose(logits, uniform, state.text, lengths)
        text = _append(state.text, lengths, token)
        finished = state.finished | _is_last(token, stop)
        return [State(state.n_done + 1, token, finished, text, caches)]

    def goes_on(state):
        return (state.n_done < end) & ~tf.reduce_all(state.finished)

    (state,) = tf.while_loop(goes_on, body, [state], return_same_structure=True)
    return state


def _append(text, lengths, token):
    """`text` [batch, n] with `token` [batch] at the index that `lengths` [batch] gives."""
    is_end = tf.equal(tf.range(tf.shape(text)[1]), lengths[:, None])
    return tf.where_v2(is_end, token[:, None], text)


def _is_last(token, stop):
    return tf.equal(token, stop) | tf.equal(token, NO_TOKEN)


def generate(hparams, choose, context, uniform, length):
    """Continue contexts of one length, all in the graph.

    Args:
      choose: see strategies.py.
      context: int32 [batch, context]
      uniform: float32 [batch, n_ctx]
      length: int or int32 [], at most n_ctx - context + 1.
    Returns: int32 [batch, context + length]. Once all samples have NO_TOKEN, the rest is 0.
    """
    batch_size = context.shape.as_list()[0]
    engine = engines.engine_for(batch_size)
    n_rows, n_context = model.shape_list(context)
    known = [tf.get_static_value(n) for n in (n_context, length)]
    n_positions = hparams.n_ctx if None in known else sum(known) - 1
    cache_lengths = kv_cache.cache_lengths(hparams, batch_size, engine.compiled, n_positions)
    batch = Batch(tf.fill([n_rows], n_context), tf.convert_to_tensor(n_context), uniform)
    state, weights = first_token(hparams, choose, context, batch)
    weights = tf.nest.map_structure(engine.prepare, weights)

    @tf.function(jit_compile=engine.compiled, autograph=False)
    def fill_caches(batch, state, length):
        return decode_loop(hparams, choose, weights, engine, batch, state, length)

    def any_length(x):
        shape = x.shape.as_list()
        return tf.TensorShape([shape[0], None, *shape[2:]] if len(shape) == 3 else shape)

    @tf.function(autograph=False)  # here a loop is one operation, whatever the outer graph uses
    def grow_and_fill(batch, state, length):
        def body(state):
            needed = batch.n_context + state.n_done
            fitting = tf.boolean_mask(cache_lengths, tf.constant(cache_lengths) >= needed)
            caches = kv_cache.grow(state.caches, tf.reduce_min(fitting))
            return [fill_caches(batch, state._replace(caches=caches), length)]

        (state,) = tf.while_loop(
            lambda state: (state.n_done < length) & ~tf.reduce_all(state.finished),
            body,
            [state],
            shape_invariants=[tf.nest.map_structure(any_length, state)],
            return_same_structure=True,
        )
        return state

    length = tf.cast(length, tf.int32)
    return grow_and_fill(batch, state, length).text[:, : n_context + length]


def uniform_for(seed, sample_indices, length):
    """Uniform random numbers for samples, each a function of the seed and the sample's index.

    Args:
      seed: int64 []
      sample_indices: int64 [batch]
    Returns: float32 [batch, length], in [0, 1). Source: Philox, doi:10.1145/2063384.2063405.
    """

    def row(index):
        return tf.random.stateless_uniform([length], tf.stack([seed, index]), alg="philox")

    if sample_indices.shape.as_list() == [1]:  # needs no loop, which takes long to build
        return row(sample_indices[0])[None]
    return tf.map_fn(row, sample_indices, fn_output_signature=tf.float32)


class Decoder:
    """Incremental decoding: the state of the loop stays in variables between two Session.run calls.

    So text can be streamed, or interrupted.

    Args:
      hparams: HParams
      choose: function that picks the next token; see strategies.py.
      batch_size: number of samples generated together.
      dtype: to compute in.
      constant: whether the weights are the same in every run.
      quick: whether the loop must not be compiled.
    Attributes:
      engine: the engines.Engine of the loop.
      cache_lengths: kv_cache.cache_lengths as a function of n_positions.
    Placeholders:
      context: int32 [batch, context]; shorter rows are padded at the end.
      lengths: int32 [batch], without the padding.
      seed, sample_indices: int64 [] and [batch], as in `uniform_for`.
      n_before: int32 [], how many tokens of the samples the contexts contain; 0 by default.
      cache_length: int32 [], the least length of the caches; 0, the default, changes nothing.
      end, stop: int32 [], as in `decode_loop`.
    Fetches:
      prefill: evaluates the contexts and generates the first token.
      grow: grows the caches to `cache_length`. Needs no other placeholder.
      decode: generates tokens until `end`, or until the caches are full.
      `prefill` and `decode` need the other placeholders. They return the number of tokens generated
      so far, int32 [], and these tokens, int32 [batch, number].
    """

    def __init__(self, hparams, choose, batch_size, dtype="float32", constant=False, quick=False):
        self.engine = engines.engine_for(batch_size, dtype, constant, quick)
        self.cache_lengths = functools.partial(
            kv_cache.cache_lengths, hparams, batch_size, self.engine.compiled
        )
        self.context = tf.placeholder(tf.int32, [batch_size, None])
        self.lengths = tf.placeholder(tf.int32, [batch_size])
        self.seed = tf.placeholder(tf.int64, [])
        self.sample_indices = tf.placeholder(tf.int64, [batch_size])
        self.cache_length = tf.placeholder_with_default(0, [])
        self.n_before = tf.placeholder_with_default(0, [])
        self.end = tf.placeholder(tf.int32, [])
        self.stop = tf.placeholder(tf.int32, [])
        uniform = uniform_for(self.seed, self.sample_indices, hparams.n_ctx)
        uniform = tf.roll(uniform, -self.n_before, axis=1)
        batch = Batch(self.lengths, tf.reduce_max(self.lengths), uniform)

        first, weights = first_token(hparams, choose, self.context, batch, self.stop, dtype)
        weights = tf.nest.map_structure(self.engine.prepare, weights)
        first = first._replace(caches=kv_cache.grow(first.caches, self.cache_length))
        # Assigned before they are read, so they need no initializer; and in no collection, so that
        # a Saver finds only the model's variables.
        self.state = tf.nest.map_structure(_uninitialized_variable, first)
        with tf.control_dependencies(_assign_all(self.state, first)):
            self.prefill = tf.identity(first.n_done), first.token[:, None]
        self.grow = self._grow()

        def loop(batch, end, stop):
            state = tf.nest.map_structure(tf.convert_to_tensor, self.state)
            state = decode_loop(hparams, choose, weights, self.engine, batch, state, end, stop)
            with tf.control_dependencies(_assign_all(self.state, state)):
                return tf.identity(state.n_done), tf.identity(state.text)

        if self.engine.compiled:
            loop = tf.function(loop, jit_compile=True, autograph=False)
        n_done, text = loop(batch, self.end, self.stop)
        places = self.lengths[:, None] + tf.range(n_done)
        self.decode = n_done, tf.gather(text, places, batch_dims=1)

    def _grow(self):
        caches = tf.nest.flatten(self.state.caches)
        paddings = done = kv_cache.paddings_for(caches[0], self.cache_length)
        for cache in caches:
            with tf.control_dependencies([done]):  # one by one: all never exist twice
                larger = tf.pad(tf.convert_to_tensor(cache), paddings)
                done = cache.assign(larger, read_value=False)
        return done


def _uninitialized_variable(like):
    return tf.Variable(
        initial_value=lambda: tf.zeros([size or 0 for size in like.shape.as_list()], like.dtype),
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
