"""Weights in bfloat16, where the processor multiplies in it and the rest is computed in float32.

The matrices of the model are stored so, once: half the memory, and faster products. The logits of
the released models are about -100 and differ by a few units. There, the numbers of bfloat16 are 0.5
apart. So wte is stored without the mean of its rows: that puts logits around 0, and float32 adds
the rest. Embeddings stay the same, as wpe gets what wte loses.
"""

import tensorflow.compat.v1 as tf

import engine

WTE_MEAN = "wte_mean"  # a variable of the graph that is in no checkpoint


def weight_dtype(name, dtype):
    """The type that a weight has in products, by the variable's name.

    Args: dtype: float32 or bfloat16, to compute in.
    """
    if not engine.stores_bfloat16(dtype):
        return dtype
    return "bfloat16" if name.endswith(("/w", "/wte")) else "float32"


def storage(dtype):
    """A custom_getter for tf.variable_scope that creates variables as they are stored.

    Args: as in `weight_dtype`.
    """

    def stored(getter, name, *args, **options):
        if engine.stores_bfloat16(dtype):
            options["dtype"] = tf.as_dtype(weight_dtype(name, dtype))
        return getter(name, *args, **options)

    return stored


def is_narrow(w):
    """Whether `w` is a weight of bfloat16 and the rest is computed in float32."""
    return w.dtype == tf.bfloat16 and engine.stores_bfloat16("bfloat16")


def mean_logit(h):
    """What `store` took from the logits of `h` [m, n_embd]: float32 [m, 1]"""
    return tf.linalg.matvec(h, _wte_mean(h.shape[-1]))[:, None]


def _wte_mean(n_embd):
    """What `store` took from the rows of wte; 0 if it took nothing."""
    return tf.get_variable(WTE_MEAN, [n_embd], initializer=tf.zeros_initializer())


def store(variable, value):
    """Operations that store a weight of float32 in a variable of bfloat16, a list."""
    if not variable.op.name.endswith("/wte"):
        return [variable.assign(tf.cast(value, variable.dtype), read_value=False)]
    with tf.variable_scope("model", reuse=tf.AUTO_REUSE):
        wpe = tf.get_variable("wpe")
        mean = _wte_mean(variable.shape[1])
    centre = tf.reduce_mean(value, axis=0)
    stored = tf.cast(value - centre, variable.dtype)
    return [
        variable.assign(stored, read_value=False),
        mean.assign(centre, read_value=False),
        wpe.assign(wpe + centre, read_value=False),
    ]
