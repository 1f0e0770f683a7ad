"""Random weights, and how the variables of a graph get them."""

import numpy as np


def random_weights(hparams, seed=0):
    """Weights for every variable of a checkpoint of this shape, large enough to matter."""
    rng = np.random.default_rng(seed)
    n = hparams.n_embd
    shapes = {"wte": [hparams.n_vocab, n], "wpe": [hparams.n_ctx, n], "ln_f/g": [n], "ln_f/b": [n]}
    for i in range(hparams.n_layer):
        for name, n_in, n_out in [
            ("attn/c_attn", n, 3 * n),
            ("attn/c_proj", n, n),
            ("mlp/c_fc", n, 4 * n),
            ("mlp/c_proj", 4 * n, n),
        ]:
            shapes[f"h{i}/{name}/w"], shapes[f"h{i}/{name}/b"] = [1, n_in, n_out], [n_out]
        for name in ["ln_1/g", "ln_1/b", "ln_2/g", "ln_2/b"]:
            shapes[f"h{i}/{name}"] = [n]
    return {
        f"model/{name}": rng.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def assign(tf, sess, weights):
    """Give the variables of the session's graph these values."""
    variables = tf.global_variables()
    values = {v.initializer.inputs[1]: weights[v.op.name] for v in variables}
    sess.run([v.initializer for v in variables], values)
