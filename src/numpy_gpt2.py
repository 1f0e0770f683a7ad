"""GPT-2 in 45 lines of NumPy, without a cache. The tests compare the TensorFlow graph with it."""

import numpy as np


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


def generate(hparams, weights, tokens, length):
    """Continue a list of token ids greedily: the list with the `length` most likely tokens."""
    for _ in range(length):
        tokens = [*tokens, int(logits(hparams, weights, np.array(tokens))[-1].argmax())]
    return tokens
