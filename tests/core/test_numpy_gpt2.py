"""GPT-2 in NumPy against the original's numbers."""

import numpy as np
from conftest import shared

import numpy_gpt2
from gpt2.model_folder import ModelFolder


def test_logits_and_greedy_tokens_equal_the_original(tf):
    folder = shared("golden/small")
    golden = np.load(folder / "reference.npz")
    hparams = ModelFolder(folder).hparams
    reader = tf.train.load_checkpoint(str(folder / "model.ckpt"))
    weights = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    for tokens, logits in zip(golden["tokens"], golden["logits"], strict=True):
        found = numpy_gpt2.logits(hparams, weights, tokens)
        np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4)
    context, expected = golden["greedy_context_1"], golden["greedy_tokens_1"]
    for row, tokens in zip(context.tolist(), expected.tolist(), strict=True):
        assert numpy_gpt2.generate(hparams, weights, row, 40) == tokens
