"""Autoregressive decoding with a KV cache: prefill, then one token at a time.

How a token is chosen is up to the caller: `choose(logits [batch, n_vocab], uniform [batch])` gives
int32 [batch]; sample.sample_token is the one that the scripts use.
"""

import functools
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

import fast_model
import kv_cache
import model
import packed
from engine import has_fast_linear, is_compiled, is_packed
from hparams import HParams


class State(NamedTuple):
    """What the loop carries from one token to the next."""

    n_done: Any  # int32 [], tokens generated so far
    token: Any  # int32 [batch], the last of them
    finished: Any  # bool [batch], whether the stop token was generated
    caches: Any  # a KVCache for each layer


def shared_block(hparams, attend, linear=None):
    """A `block` for model.transformer: model.block as a function that all layers call.

    Building the graph then takes about as long for many layers as for one.

    Args:
      attend: as in model.block.
      linear: None, or what computes the linear maps, as fast_model.linear does.
    """
    variables = _variables_of_a_layer(hparams.n_embd, hparams.n_head)

    @tf.function(autograph=False)
    def layer(x, past, weights):
        def read(getter, name, *args, **kwargs):
            weight = weights[name.removeprefix("h/")]
            return functools.partial(linear, w=weight) if linear and name.endswith("/w") else weight

        with tf.variable_scope(tf.VariableScope(None, custom_getter=read)):
            return model.block(x, "h", past=past, hparams=hparams, attend=attend)

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

    def attend(q, k, v, past):  # has no variables, so it need not be built
        return q, None

    with tf.Graph().as_default(), tf.variable_scope("", custom_getter=record):
        x = tf.zeros([1, 1, hparams.n_embd])
        model.block(x, "h", past=None, hparams=hparams, attend=attend)
    return variables


def prefill(hparams, context, lengths, *, dtype=tf.float32):
    """Evaluate contexts in one pass.

    Args:
      context: int32 [batch, context]; shorter rows are padded at the end.
      lengths: int32 [batch], without the padding.
      dtype: to compute in.
    Returns:
      dtype [batch, n_vocab], logits of each row's next token.
      A KVCache for each layer, `context` positions long.
      The model's weights as tensors of dtype, by variable name.
    """
    weights = {}

    def read(getter, name, *args, **kwargs):
        weights[name] = tf.cast(tf.convert_to_tensor(getter(name, *args, **kwargs)), dtype)
        return weights[name]

    last = lengths[:, None] - 1
    linear = fast_model.linear if has_fast_linear(dtype) else None
    shared = shared_block(hparams, kv_cache.starting_attention(), linear)

    def block(x, scope, **how):
        if scope != f"h{hparams.n_layer - 1}":
            return shared(x, scope, **how)
        # Of the last layer, only the cache and what predicts the next token are used later.
        attend = kv_cache.starting_attention(last)
        keep = functools.partial(tf.gather, indices=last, batch_dims=1)
        return model.block(x, scope, **how, attend=attend, keep=keep)

    with tf.variable_scope("model", reuse=tf.AUTO_REUSE, custom_getter=read):
        positions = model.positions_for(context, 0)
        pasts = [None] * hparams.n_layer
        h, caches = model.transformer(hparams, context, positions, pasts, block)
        logits = model.predict(hparams, h[:, 0])
    return logits, caches, weights


def first_token(hparams, choose, context, lengths, uniform, stop=-1, dtype=tf.float32):
    """Prefill, and choose the first token. Returns: State, and the weights as in `prefill`."""
    logits, caches, weights = prefill(hparams, context, lengths, dtype=dtype)
    token = choose(logits, uniform[:, 0])
    return State(tf.constant(1), token, tf.equal(token, stop), caches), weights


def split_rows(w, n):
    """[1, nx, nf] -> [n, nx // n, nf] if n divides nx and is not 1, else [nx, nf].

    This is what model.product takes. A reshape inside the loop would keep XLA from sharing the
    product among the cores.
    """
    if w.shape.ndims < 3:
        return w
    _, nx, nf = w.shape.as_list()
    return tf.reshape(w, [n, nx // n, nf] if n > 1 and nx % n == 0 else [nx, nf])


def decode_loop(
    hparams,
    choose,
    weights,
    state,
    lengths,
    n_context,
    uniform,
    output,
    end,
    stop=-1,
    *,
    compiled,
    constant=False,
):
    """Generate one token after the other, until `end` or until the caches are full.

    Args:
      weights: as returned by `prefill`.
      lengths: int32 [batch], of the contexts; n_context: int32 [], the longest of them.
      uniform: float32 [batch, at least end], a random number for each token.
      output: int32 [batch, at least end], in which each token is written at its index.
      end: int32 [], number of tokens to reach.
      stop: int32 [], token that finishes its sample; the loop ends when all are finished.
      compiled: whether this is called in a tf.function that XLA compiles.
      constant: whether the weights are the same in every run, so that packed.py may keep copies.
    Returns: the new State and output.
    """
    cache_length = tf.shape(state.caches[0].k)[1]
    end = tf.minimum(end, cache_length - n_context + 1)  # the last token is never fed back
    if compiled or constant:
        one_row = lengths.shape.as_list()[0] == 1
        n = 8 if compiled and one_row else 1  # for one row, XLA is faster with blocks
        weights = {name: split_rows(w, n) for name, w in weights.items()}

    def read(getter, name, *args, **kwargs):
        if constant and name.endswith("/w"):
            return functools.partial(packed.linear, w=weights[name])
        return weights[name]

    def predict(h):
        if not constant:
            return model.predict(hparams, h)
        return packed.linear(h, 0, w=weights["model/wte"], transpose_b=True)

    def body(state, output):
        position = n_context + state.n_done - 1  # in the caches, of the token that is evaluated
        slots = tf.range(cache_length)
        in_use = (slots < lengths[:, None]) | ((slots >= n_context) & (slots <= position))
        bias = tf.cast(tf.where_v2(in_use, 0.0, -1e10), state.caches[0].k.dtype)
        bias = tf.repeat(bias[:, None], hparams.n_head, axis=0)
        attend = kv_cache.cached_attention(
            *(bias, position),
            in_place=not compiled,
            product=packed.small_products if constant else tf.matmul,
        )
        if constant:  # a shared block would have one packed copy for all layers
            block = functools.partial(model.block, attend=attend)
        else:
            block = shared_block(hparams, attend)
        with tf.variable_scope("model", reuse=True, custom_getter=read):
            positions = lengths[:, None] + state.n_done - 1
            tokens = tf.maximum(state.token, 0)[:, None]  # -1 where there was none to choose
            h, caches = model.transformer(hparams, tokens, positions, state.caches, block)
            logits = predict(h[:, 0])
        token = choose(logits, tf.gather(uniform, state.n_done, axis=1))
        index = tf.range(tf.shape(output)[1])
        output = tf.where_v2(tf.equal(index, state.n_done), token[:, None], output)
        finished = state.finished | tf.equal(token, stop)
        return State(state.n_done + 1, token, finished, caches), output

    return tf.while_loop(
        lambda state, _: (state.n_done < end) & ~tf.reduce_all(state.finished),
        body,
        [state, output],
    )


def generate(hparams, choose, context, uniform, length):
    """Continue contexts of one length, all in the graph: int32 [batch, length].

    Args:
      choose: see the top of this file.
      context: int32 [batch, context]
      uniform: float32 [batch, n_ctx]
      length: int or int32 [], at most n_ctx - context + 1.
    """
    batch_size = context.shape.as_list()[0]
    compiled = is_compiled(batch_size)
    batch, n_context = model.shape_list(context)
    known = [tf.get_static_value(n) for n in (n_context, length)]
    n_positions = hparams.n_ctx if None in known else sum(known) - 1
    cache_lengths = kv_cache.cache_lengths(hparams, batch_size, compiled, n_positions)
    lengths = tf.fill([batch], n_context)
    state, weights = first_token(hparams, choose, context, lengths, uniform)
    output = tf.pad(state.token[:, None], [[0, 0], [0, hparams.n_ctx - 1]])

    @tf.function(jit_compile=compiled, autograph=False)
    def fill_caches(state, lengths, n_context, uniform, output, length):
        return decode_loop(
            *(hparams, choose, weights, state, lengths, n_context, uniform, output, length),
            compiled=compiled,
        )

    def any_length(x):
        shape = x.shape.as_list()
        return tf.TensorShape([shape[0], None, *shape[2:]] if len(shape) == 3 else shape)

    @tf.function(autograph=False)  # here a loop is one operation, whatever the outer graph uses
    def grow_and_fill(state, lengths, n_context, uniform, output, length):
        def body(state, output):
            needed = n_context + state.n_done
            fitting = tf.boolean_mask(cache_lengths, tf.constant(cache_lengths) >= needed)
            state = state._replace(caches=kv_cache.grow(state.caches, tf.reduce_min(fitting)))
            return fill_caches(state, lengths, n_context, uniform, output, length)

        return tf.while_loop(
            lambda state, _: state.n_done < length,
            body,
            [state, output],
            shape_invariants=tf.nest.map_structure(any_length, [state, output]),
        )

    length = tf.cast(length, tf.int32)
    _, output = grow_and_fill(state, lengths, n_context, uniform, output, length)
    return output[:, :length]


def uniform_for(seed, numbers, length):
    """Uniform random numbers for samples, each a function of the seed and the sample's number.

    Args:
      seed: int64 []
      numbers: int64 [batch]
    Returns: float32 [batch, length], in [0, 1). Source: Philox, doi:10.1145/2063384.2063405.
    """

    def row(number):
        return tf.random.stateless_uniform([length], tf.stack([seed, number]), alg="philox")

    if numbers.shape.as_list() == [1]:  # needs no loop, which takes long to build
        return row(numbers[0])[None]
    return tf.map_fn(row, numbers, fn_output_signature=tf.float32)


class Decoder:
    """Incremental decoding: the state of the loop stays in variables between two Session.run calls.

    So text can be streamed, or interrupted. There are two loops that do the same: one that XLA
    compiles, once for each cache length, and one of TensorFlow's own operations. They work on
    the same state, so that one can go on where the other stopped.

    Args:
      hparams: HParams
      choose: function that picks the next token; see the top of this file.
      batch_size: number of samples generated together.
      dtype: to compute in.
      constant: whether the weights are the same in every run.
    Attributes:
      compiled: as is_compiled says.
      packed: whether `decode` has packed copies of the weights.
      cache_lengths: kv_cache.cache_lengths as a function of n_positions.
    Placeholders:
      context: int32 [batch, context]; shorter rows are padded at the end.
      lengths: int32 [batch], without the padding.
      seed, numbers: int64 [] and [batch], as in `uniform_for`.
      n_before: int32 [], how many tokens of the samples the contexts contain; 0 by default.
      cache_length: int32 [], the least length of the caches; 0, the default, changes nothing.
      end, stop: int32 [], as in `decode_loop`.
    Fetches:
      prefill: evaluates the contexts and generates the first token.
      grow: grows the caches to `cache_length`. Needs no other placeholder.
      decode: generates tokens until `end`, or until the caches are full.
      decode_uncompiled: the same without XLA, whatever is_compiled says.
      compile: compiles `decode` for caches of `cache_length`, and leaves the state alone.
      `prefill` and both loops need the other placeholders. They return the number of tokens
      generated so far, int32 [], and the tokens of this run at their indices, int32
      [batch, n_ctx] ([batch, 1] for `prefill`). All but `prefill` are built when they are first
      used. The first run of any takes longer; with `end` 0 a loop, and with `cache_length` 0
      `grow`, gets ready and does nothing.
    """

    def __init__(self, hparams, choose, batch_size, dtype=tf.float32, constant=False):
        self.hparams, self.choose = hparams, choose
        can_pack = constant and is_packed(dtype)
        self.compiled = is_compiled(batch_size, can_pack)
        self.packed = can_pack and not self.compiled
        self.cache_lengths = functools.partial(
            kv_cache.cache_lengths, hparams, batch_size, self.compiled
        )
        self.context = tf.placeholder(tf.int32, [batch_size, None])
        self.lengths = tf.placeholder(tf.int32, [batch_size])
        self.seed = tf.placeholder(tf.int64, [])
        self.numbers = tf.placeholder(tf.int64, [batch_size])
        self.cache_length = tf.placeholder_with_default(0, [])
        self.n_before = tf.placeholder_with_default(0, [])
        self.end = tf.placeholder(tf.int32, [])
        self.stop = tf.placeholder(tf.int32, [])
        uniform = uniform_for(self.seed, self.numbers, hparams.n_ctx)
        self._uniform = tf.roll(uniform, -self.n_before, axis=1)

        first, self._weights = first_token(
            hparams, choose, self.context, self.lengths, self._uniform, self.stop, dtype
        )
        first = first._replace(caches=kv_cache.grow(first.caches, self.cache_length))
        # Assigned before they are read, so they need no initializer; and in no collection, so that
        # a Saver finds only the model's variables.
        self.state = tf.nest.map_structure(_uninitialized_variable, first)
        with tf.control_dependencies(_assign_all(self.state, first)):
            self.prefill = tf.identity(first.n_done), first.token[:, None]

    @functools.cached_property
    def grow(self):
        def grow():
            caches = tf.nest.flatten(self.state.caches)
            paddings = done = kv_cache.paddings_for(caches[0], self.cache_length)
            for cache in caches:
                with tf.control_dependencies([done]):  # one by one: all never exist twice
                    larger = tf.pad(tf.convert_to_tensor(cache), paddings)
                    done = cache.assign(larger, read_value=False)
            with tf.control_dependencies([done]):
                return tf.constant(0)

        with self.context.graph.as_default():
            return tf.cond(self.cache_length > 0, grow, lambda: tf.constant(0))

    @functools.cached_property
    def decode(self):
        return self._unless_idle(self._loop if self.compiled else self._run_loop)

    @functools.cached_property
    def decode_uncompiled(self):
        return self._unless_idle(self._run_loop) if self.compiled else self.decode

    @functools.cached_property
    def compile(self):
        with self.context.graph.as_default():
            # A state of zeros, but its caches are never touched, so that they take no memory.
            state = tf.nest.map_structure(_uninitialized_variable, self.state)
            assigned = []
            for variable in tf.nest.flatten(state):
                sizes = variable.shape.as_list()
                shape = [self.cache_length if size is None else size for size in sizes]
                empty = tf.raw_ops.Empty(shape=shape, dtype=variable.dtype, init=None not in sizes)
                assigned.append(variable.assign(empty, read_value=False))
            with tf.control_dependencies(assigned):
                n_done, _ = self._loop(state, *self._arguments())
            with tf.control_dependencies([n_done]):
                handles = [variable.handle for variable in tf.nest.flatten(state)]
                return tf.group([tf.raw_ops.DestroyResourceOp(resource=h) for h in handles])

    def _unless_idle(self, loop):
        def nothing():
            return tf.constant(0), tf.zeros(self._uniform.shape, tf.int32)

        with self.context.graph.as_default():
            return tf.cond(self.end > 0, lambda: loop(self.state, *self._arguments()), nothing)

    def _arguments(self):
        n_context = tf.reduce_max(self.lengths)
        return self.lengths, n_context, self._uniform, self.end, self.stop

    @functools.cached_property
    def _loop(self):
        run = functools.partial(self._run_loop, compiled=True)
        return tf.function(run, jit_compile=True, autograph=False)

    def _run_loop(self, variables, lengths, n_context, uniform, end, stop, compiled=False):
        state = tf.nest.map_structure(tf.convert_to_tensor, variables)
        output = tf.zeros(uniform.shape, tf.int32)
        state, output = decode_loop(
            *(self.hparams, self.choose, self._weights, state),
            *(lengths, n_context, uniform, output, end, stop),
            compiled=compiled,
            constant=self.packed,
        )
        with tf.control_dependencies(_assign_all(variables, state)):
            return tf.identity(state.n_done), tf.identity(output)


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
