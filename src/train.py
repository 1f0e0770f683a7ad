#!/usr/bin/env python3
"""Train a model on a text, from its checkpoint or from random weights."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm, trange

import checkpoint
from command_line import import_tensorflow, read_text, run
from encoder import get_encoder
from settings import HParams, UserError

VOCABULARY = ["hparams.json", "encoder.json", "vocab.bpe"]


def train(
    dataset: str,
    model_name: str,
    run_name: str,
    models_dir: str = "models",
    checkpoint_dir: str = "checkpoint",
    from_scratch: bool = False,
    steps: int = 1000,
    batch_size: int = 16,
    learning_rate: float = 1e-4,
    warmup_steps: int = 100,
    clip_norm: float = 1.0,
    held_out: float = 0.1,
    eval_every: int = 100,
    seed: int = 0,
) -> None:
    """Train a model on a text file; the weights with the lowest held-out loss are kept.

    The result is a model like the released ones: sample from it with
    --models_dir CHECKPOINT_DIR --model_name RUN_NAME. The same command continues a run that
    was interrupted, from its last evaluation.

    Args:
      dataset: text file, UTF-8; <|endoftext|> in it ends a text.
      model_name: model to start from; gives the shape and the vocabulary too.
      run_name: the result lands in CHECKPOINT_DIR/RUN_NAME.
      models_dir: folder that holds the model.
      checkpoint_dir: folder that holds the runs.
      from_scratch: start from random weights, not from the model's.
      steps: how many times the weights are updated.
      batch_size: windows of n_ctx tokens in an update.
      learning_rate: the highest; it rises over the warm-up and then falls to a tenth as a cosine.
      warmup_steps: updates over which the rate rises.
      clip_norm: gradients longer than this, all taken together, are shortened to it.
      held_out: share of the text, at its end, that is not trained on.
      eval_every: updates between two evaluations on the held-out text.
      seed: fixes the random weights and the choice of windows.
    """
    folder = checkpoint.find_model(model_name, models_dir)
    hparams = checkpoint.load_hparams(folder)
    weights = None if from_scratch else checkpoint.find_weights(folder, hparams)
    for name, value in [("steps", steps), ("batch_size", batch_size), ("eval_every", eval_every)]:
        if value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    training, testing = load_tokens(dataset, folder, hparams, held_out)

    run_folder = Path(checkpoint_dir) / run_name
    run_folder.mkdir(parents=True, exist_ok=True)
    for name in VOCABULARY:
        shutil.copyfile(folder / name, run_folder / name)

    tf = import_tensorflow()
    export_meta_graph(hparams, run_folder / "model.ckpt.meta")
    tf.set_random_seed(seed)
    graph = build(hparams, clip_norm)
    with tf.Session() as sess:
        state = State(run_folder, sess)
        if not state.resume():
            sess.run(tf.global_variables_initializer())
            if weights:
                graph["saver"].restore(sess, str(weights))

        progress = trange(state.step, steps, initial=state.step, total=steps, unit="step")
        for step in progress:
            rate = rate_at(step, steps, learning_rate, warmup_steps)
            X, Y = random_windows(training, hparams.n_ctx, batch_size, seed=[seed, step])
            feed = {graph["X"]: X, graph["Y"]: Y, graph["rate"]: rate}
            loss, _ = sess.run([graph["loss"], graph["update"]], feed)
            progress.set_postfix(loss=f"{loss:.3f}", held_out=f"{state.best:.3f}")
            if (step + 1) % eval_every == 0 or step + 1 == steps:
                held_out_loss = evaluate(sess, graph, testing, hparams.n_ctx, batch_size)
                tqdm.write(f"step {step + 1}: loss {loss:.4f}, held-out loss {held_out_loss:.4f}")
                if held_out_loss < state.best:
                    state.best = held_out_loss
                    graph["saver"].save(
                        sess, str(run_folder / "model.ckpt"), write_meta_graph=False
                    )
                state.save(step + 1)


def load_tokens(
    dataset: str, folder: Path, hparams: HParams, held_out: float
) -> tuple[np.ndarray, np.ndarray]:
    """Encode a text: int32 token ids to train on, and those held out from its end."""
    text = read_text(dataset)
    ids = get_encoder(folder.name, str(folder.parent)).encode(text, allow_special=True)
    tokens = np.array(ids, np.int32)
    cut = round(len(tokens) * (1 - held_out))
    shortest = min(cut, len(tokens) - cut)
    if shortest <= hparams.n_ctx:
        raise UserError(
            f"{dataset} is too short: both the training and the held-out part need more than "
            f"n_ctx = {hparams.n_ctx} tokens, one has {shortest}"
        )
    return tokens[:cut], tokens[cut:]


def random_windows(
    tokens: np.ndarray, n_ctx: int, batch_size: int, seed: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Windows that begin anywhere: ids [batch, n_ctx], and the ids that follow each."""
    starts = np.random.default_rng(seed).integers(0, len(tokens) - n_ctx, [batch_size, 1])
    positions = starts + np.arange(n_ctx)
    return tokens[positions], tokens[positions + 1]


def rate_at(step: int, steps: int, learning_rate: float, warmup_steps: int) -> float:
    """The learning rate of an update: a linear rise, then half a cosine down to a tenth."""
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return learning_rate * (0.55 + 0.45 * math.cos(math.pi * done))


def build(hparams: HParams, clip_norm: float) -> dict[str, Any]:
    """The training graph: placeholders X, Y int32 [batch, sequence] and rate; loss in nats
    a token; update; and a saver of the model's variables alone."""
    import tensorflow.compat.v1 as tf

    import model

    X = tf.placeholder(tf.int32, [None, None])
    Y = tf.placeholder(tf.int32, [None, None])
    rate = tf.placeholder(tf.float32, [])
    logits = model.model(hparams, X)["logits"]
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=Y, logits=logits))
    variables = tf.trainable_variables()
    saver = tf.train.Saver(variables, max_to_keep=1, save_relative_paths=True)
    gradients, _ = tf.clip_by_global_norm(tf.gradients(loss, variables), clip_norm)
    optimizer = tf.train.AdamOptimizer(rate, beta2=0.95)
    update = optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return {"X": X, "Y": Y, "rate": rate, "loss": loss, "update": update, "saver": saver}


def export_meta_graph(hparams: HParams, path: Path) -> None:
    """Write the graph of the model alone: the one file of the release that is not weights."""
    import tensorflow.compat.v1 as tf

    import model

    with tf.Graph().as_default():
        model.model(hparams, tf.placeholder(tf.int32, [None, None]))
        tf.train.Saver().export_meta_graph(str(path), clear_devices=True)


def evaluate(
    sess: Any, graph: dict[str, Any], tokens: np.ndarray, n_ctx: int, batch_size: int
) -> float:
    """Mean loss in nats a token over neighbouring windows; a last part window is left out."""
    n_windows = (len(tokens) - 1) // n_ctx
    X = tokens[: n_windows * n_ctx].reshape(n_windows, n_ctx)
    Y = tokens[1 : n_windows * n_ctx + 1].reshape(n_windows, n_ctx)
    total = 0.0
    for i in range(0, n_windows, batch_size):
        feed = {graph["X"]: X[i : i + batch_size], graph["Y"]: Y[i : i + batch_size]}
        total += sess.run(graph["loss"], feed) * len(feed[graph["X"]])
    return total / n_windows


class State:
    """All that a run needs to continue: weights, the optimizer's moments, step, best loss."""

    def __init__(self, run_folder: Path, sess: Any):
        import tensorflow.compat.v1 as tf

        self.folder = run_folder / "state"
        self.sess = sess
        self.saver = tf.train.Saver(max_to_keep=1)
        self.latest = tf.train.latest_checkpoint(str(self.folder))
        self.step = 0
        self.best = math.inf

    def resume(self) -> bool:
        """Restore the newest state, if there is one."""
        if self.latest is None:
            return False
        self.saver.restore(self.sess, self.latest)
        progress = json.loads(Path(f"{self.latest}.json").read_text(encoding="utf-8"))
        self.step, self.best = progress["step"], progress["best"]
        return True

    def save(self, step: int) -> None:
        """Write the state; it counts only once it is whole."""
        self.folder.mkdir(exist_ok=True)
        prefix = self.folder / f"model-{step}"
        progress = {"step": step, "best": float(self.best)}
        Path(f"{prefix}.json").write_text(json.dumps(progress), encoding="utf-8")
        # The saver names a checkpoint as the latest after all of it is written.
        self.saver.save(self.sess, str(prefix), write_meta_graph=False)


if __name__ == "__main__":
    run(train)
