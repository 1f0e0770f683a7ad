"""GPT-2 once more, in NumPy and without any cache: what the graph is held against."""

import numpy as np


def random_weights(hparams, seed=0):
    """Weights of every variable that a checkpoint of this shape holds, large enough to matter."""
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


def logits(hparams, weights, tokens):
    """float64 [sequence, n_vocab] for token ids [sequence]."""
    w = {name.removeprefix("model/"): value.astype(np.float64) for name, value in weights.items()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return centred / scale * w[f"{name}/g"] + w[f"{name}/b"]

    def linear(x, name):
        return x @ w[f"{name}/w"][0] + w[f"{name}/b"]

    x = w["wte"][tokens] + w["wpe"][: len(tokens)]
    for i in range(hparams.n_layer):
        q, k, v = np.split(linear(norm(x, f"h{i}/ln_1"), f"h{i}/attn/c_attn"), 3, axis=-1)
        heads = []
        for q_h, k_h, v_h in zip(
            *(np.split(t, hparams.n_head, -1) for t in (q, k, v)), strict=True
        ):
            scores = q_h @ k_h.T / np.sqrt(q_h.shape[-1])
            scores[np.triu_indices(len(tokens), 1)] = -np.inf
            p = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(p / p.sum(-1, keepdims=True) @ v_h)
        x = x + linear(np.concatenate(heads, -1), f"h{i}/attn/c_proj")
        u = linear(norm(x, f"h{i}/ln_2"), f"h{i}/mlp/c_fc")
        u = 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
        x = x + linear(u, f"h{i}/mlp/c_proj")
    return norm(x, "ln_f") @ w["wte"].T


def assign(tf, sess, weights):
    """Give the variables of the session's graph these values."""
    variables = tf.global_variables()
    values = {v.initializer.inputs[1]: weights[v.op.name] for v in variables}
    sess.run([v.initializer for v in variables], values)
