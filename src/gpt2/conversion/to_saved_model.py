"""From a folder in the released format to a SavedModel, which runs without this code."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from gpt2 import checkpoint
from gpt2.conversion.folder import new_folder
from gpt2.conversion.weights import read_checkpoint
from gpt2.model_folder import ModelFolder
from gpt2.tensorflow_session import import_tensorflow
from gpt2.terminal import status_line


# The graph has public operations only, no XLA and none of oneDNN's private ones; no GPU is used.
@patch.dict(
    os.environ, GPT2_ENGINE="tensorflow", TF_ENABLE_ONEDNN_OPTS="0", CUDA_VISIBLE_DEVICES=""
)
def convert(model: ModelFolder, target_folder: Path) -> None:
    """Write a folder that tf.saved_model.load and TensorFlow Serving load.

    Memory is that of one copy of the weights.

    Args: target_folder, which must not exist, and appears when it is complete.
    Raises: UserError if the model is not complete, or the target exists; OSError.
    """
    hparams, weights, _ = model.hparams, model.weights, model.encoder
    with new_folder(target_folder) as folder, status_line(f"converting {model.name} ..."):
        tf = import_tensorflow()
        saved, tensors = tf.Module(), read_checkpoint(tf, weights, hparams)
        saved.weights = {name: tf.Variable(value, name=name) for name, _, value in tensors}
        saved.assets = [tf.saved_model.Asset(model.path / n) for n in ("encoder.json", "vocab.bpe")]
        with checkpoint.named_write_errors(target_folder):
            tf.saved_model.save(saved, str(folder), build_signatures(tf, model, saved.weights))


def build_signatures(tf: Any, folder: ModelFolder, weights: Mapping[str, Any]) -> dict[str, Any]:
    """The functions `logits` and `generate`, as docs/models.md describes them.

    Args: weights, variables by their names in a checkpoint.
    """
    from decoder import uniform_for
    from model import model
    from sample import sample_sequence, sample_token

    n_vocab, n_ctx = folder.hparams.n_vocab, folder.hparams.n_ctx
    is_token = [i in folder.encoder.decoder for i in range(n_vocab)]

    def checked(tokens: Any) -> Any:
        fit = (tf.size(tokens) > 0) & (tf.shape(tokens)[1] <= n_ctx)
        are_ids = tf.reduce_all((tokens >= 0) & (tokens < n_vocab))
        message = f"tokens must be from 1 to n_ctx = {n_ctx} ids from 0 to {n_vocab - 1}"
        with tf.control_dependencies([tf.debugging.Assert(fit & are_ids, [message])]):
            return tf.identity(tokens)

    def logits(tokens: Any) -> dict[str, Any]:
        return {"logits": model(folder.hparams, checked(tokens))["logits"]}

    def generate(tokens: Any, length: Any, seed: Any, sample: Any, **how: Any) -> dict[str, Any]:
        n_texts, n_context = tf.unstack(tf.shape(tokens))
        message = "sample must have a number for each text"
        one_each = tf.debugging.Assert(tf.equal(tf.size(sample), n_texts), [message])
        with tf.control_dependencies([one_each]):
            uniform = uniform_for(seed, sample, n_ctx)

        def choose(logits: Any, _: Any, texts: Any, lengths: Any) -> Any:
            # Not the random numbers of sample_sequence: these depend on the seed and the sample.
            numbers = tf.gather(uniform, lengths - n_context, batch_dims=1)
            return sample_token(tf.where_v2(is_token, logits, float("-inf")), numbers, **how)

        texts = sample_sequence(
            hparams=folder.hparams, length=length, context=checked(tokens), choose=choose, **how
        )
        return {"tokens": texts[:, n_context:]}

    specs = {
        "tokens": tf.TensorSpec([None, None], tf.int32),
        "sample": tf.TensorSpec([None], tf.int64),
        "seed": tf.TensorSpec([], tf.int64),
        **dict.fromkeys(("length", "top_k"), tf.TensorSpec([], tf.int32)),
        **dict.fromkeys(("temperature", "top_p"), tf.TensorSpec([], tf.float32)),
    }
    with tf.variable_scope("", custom_getter=lambda getter, name, *_, **__: weights[name]):
        return {
            "logits": tf.function(logits, autograph=False).get_concrete_function(specs["tokens"]),
            "generate": tf.function(generate, autograph=False).get_concrete_function(**specs),
        }
