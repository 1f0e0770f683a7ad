"""From a folder in the released format to a TensorFlow SavedModel, which needs none of this code.

Its graph has TensorFlow's public operations only: no XLA, and none of oneDNN's private ones.
"""

import contextlib
import functools
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from gpt2 import checkpoint
from gpt2.conversion.folder import new_folder, refuse_existing
from gpt2.model_folder import ModelFolder
from gpt2.tensorflow_session import import_tensorflow, interrupted_afterwards
from gpt2.terminal import status_line
from hparams import HParams
from sampling_settings import Sampling, assertions

PORTABLE = {"GPT2_ENGINE": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "0"}
VOCABULARY_FILES = "encoder.json", "vocab.bpe"
SETTINGS = {"length": "int32", "temperature": "float32", "top_k": "int32", "top_p": "float32"}


def convert(model: ModelFolder, target_folder: Path) -> None:
    """Write a folder that tf.saved_model.load and TensorFlow Serving load.

    Memory is that of one copy of the weights.

    Args:
      model: what to convert.
      target_folder: appears when it is complete; must not exist.
    Raises: UserError if the model is not complete, or the target exists; OSError.
    """
    refuse_existing(target_folder)
    hparams, weights, encoder = model.hparams, model.weights, model.encoder
    known = [i in encoder.decoder for i in range(hparams.n_vocab)]
    with status_line(f"loading {model.name} ..."):
        tf = import_tensorflow()
    processor = tf.ConfigProto(device_count={"GPU": 0})
    with tf.Graph().as_default(), tf.Session(config=processor) as session:
        with _portable_operations():
            signatures = {"logits": _logits(tf, hparams), "generate": _generate(tf, hparams, known)}
        assets = {n: tf.constant(str(model.path / n), name=n) for n in VOCABULARY_FILES}
        saver = _saver(tf, session.graph, assets)
        checkpoint.restore(session, weights)
        with new_folder(target_folder) as folder, checkpoint.named_write_errors(target_folder):
            builder = tf.saved_model.Builder(str(folder))
            with interrupted_afterwards():
                builder.add_meta_graph_and_variables(
                    session,
                    [tf.saved_model.SERVING],
                    signature_def_map=signatures,
                    assets_collection=[*assets.values()],
                    clear_devices=True,
                    strip_default_attrs=True,
                    saver=saver,
                )
                builder.save()


def _saver(tf: Any, graph: Any, assets: Collection[str]) -> Any:
    """A Saver that writes this graph, without what restoring adds, and without paths in it.

    Args: assets, the names of the nodes that hold paths. Whatever loads the model replaces these.
    """
    saver = tf.train.Saver()
    graph_def = graph.as_graph_def()
    for node in graph_def.node:
        if node.name in assets:
            node.attr["value"].tensor.string_val[:] = [node.name.encode()]
    saver.export_meta_graph = functools.partial(
        tf.train.export_meta_graph, graph_def=graph_def, saver_def=saver.saver_def
    )
    return saver


@contextlib.contextmanager
def _portable_operations() -> Iterator[None]:
    """Build graphs that run wherever TensorFlow does."""
    before = {name: os.environ[name] for name in PORTABLE if name in os.environ}
    os.environ.update(PORTABLE)
    try:
        yield
    finally:
        for name in PORTABLE:
            del os.environ[name]
        os.environ.update(before)


def _logits(tf: Any, hparams: HParams) -> Any:
    import model

    tokens = tf.placeholder(tf.int32, [None, None])
    with tf.control_dependencies(_checks(tf, hparams, tokens, 1)):
        logits = model.model(hparams, tf.identity(tokens))["logits"]
    return tf.saved_model.predict_signature_def({"tokens": tokens}, {"logits": logits})


def _generate(tf: Any, hparams: HParams, known: list[bool]) -> Any:
    import decoder
    import sample

    def choose(logits: Any, uniform: Any, *text: Any) -> Any:
        logits = tf.where_v2(known, logits, float("-inf"))  # rows that are no tokens
        return sample.sample_token(logits, uniform, *how)

    tokens = tf.placeholder(tf.int32, [None, None])
    settings = {name: tf.placeholder(dtype, []) for name, dtype in SETTINGS.items()}
    seed, number = tf.placeholder(tf.int64, []), tf.placeholder(tf.int64, [None])
    length, *how = settings.values()
    checks = _checks(tf, hparams, tokens, length) + assertions(Sampling(**settings), hparams)
    one_each = tf.equal(tf.shape(number)[0], tf.shape(tokens)[0])
    checks.append(tf.debugging.Assert(one_each, ["sample must have a number for each text"]))
    with tf.control_dependencies(checks):
        uniform = decoder.uniform_for(seed, number, hparams.n_ctx)
        texts = decoder.generate(hparams, choose, tf.identity(tokens), uniform, length)
    exist = tf.debugging.Assert(tf.reduce_all(texts >= 0), ["the logits are not numbers"])
    with tf.control_dependencies([exist]):
        new = texts[:, tf.shape(tokens)[1] :]
    inputs = {"tokens": tokens, **settings, "seed": seed, "sample": number}
    return tf.saved_model.predict_signature_def(inputs, {"tokens": new})


def _checks(tf: Any, hparams: HParams, tokens: Any, length: Any) -> list[Any]:
    """Operations that fail unless `tokens` are ids of texts that leave room for `length` more."""
    are_ids = tf.reduce_all((tokens >= 0) & (tokens < hparams.n_vocab)) & (tf.size(tokens) > 0)
    fit = tf.shape(tokens)[1] + tf.maximum(length, 1) - 1 <= hparams.n_ctx
    return [
        tf.debugging.Assert(are_ids, [f"tokens must be ids from 0 to {hparams.n_vocab - 1}"]),
        tf.debugging.Assert(fit, [f"tokens and length exceed n_ctx = {hparams.n_ctx}"]),
    ]
