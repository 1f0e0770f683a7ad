"""Training speed in tokens per second, compared with Hugging Face transformers on PyTorch.

    python3 benchmarks/bench_train.py
    python3 benchmarks/bench_train.py --peer_python OTHER_ENVIRONMENT/bin/python

Both start from the same random weights in the 117M shape and take turns at the same train steps:
loss, gradients, clipping, Adam. The ratio is the median over the ratios of single turns, so that it
is meaningful even on a busy machine. Before anything is timed, the losses of the two are compared.
PyTorch runs in its own process, in an environment that has torch and transformers.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from peer import hugging_face_model

GOAL = 1.0  # times the peer's speed
LEARNING_RATE, CLIP_NORM, BETAS = 1e-4, 1.0, (0.9, 0.95)
N_VOCAB, CHECKED = 50257, 3  # train steps whose losses are compared


def windows(flags, step):
    """The token ids of a train step: int64 [batch, window + 1]."""
    rng = np.random.default_rng(step)
    return rng.integers(0, N_VOCAB, [flags.batch_size, flags.window + 1])


def timed(update, ids):
    """Seconds that a train step takes, and its loss."""
    began = time.perf_counter()
    loss = update(ids)
    return time.perf_counter() - began, float(loss)


def own_update(flags, weights_file):
    """Build our training graph and write its weights. Returns: TensorFlow's name, a train step."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    from gpt2.tensorflow_session import choose_device, import_tensorflow
    from hparams import HParams

    tf = import_tensorflow()
    from gpt2.training import train_graph
    from gpt2.training.options import TrainingOptions
    from gpt2.training.workers import Workers

    tf.disable_eager_execution()
    tf.set_random_seed(0)
    hparams = HParams(n_embd=12, n_layer=2) if flags.smoke else HParams()
    options = TrainingOptions(flags.window, clip_norm=CLIP_NORM)
    graph = train_graph.build(hparams, options, Workers())
    config, _ = choose_device("auto", tf)
    config.intra_op_parallelism_threads = config.inter_op_parallelism_threads = flags.threads
    session = tf.Session(config=config)
    session.run(tf.global_variables_initializer())
    np.savez(weights_file, **{v.op.name: session.run(v) for v in graph.weights})
    name = f"TensorFlow {tf.__version__}"
    return name, lambda ids: session.run(
        graph.update, {graph.ids: ids, graph.learning_rate: LEARNING_RATE}
    )


def peer_update(flags, weights_file):
    """The same in PyTorch, with the model of Hugging Face."""
    import torch
    import transformers

    if flags.threads:
        torch.set_num_threads(flags.threads)
    model = hugging_face_model(
        weights_file, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, betas=BETAS, fused=True)

    def update(ids):
        ids = torch.from_numpy(ids)
        logits = model(ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        return loss.item()

    return f"transformers {transformers.__version__}, PyTorch {torch.__version__}", update


class Peer:
    """The peer, in its own process: this script with --serve."""

    def __init__(self, flags, weights_file):
        arguments = [f"--{name}={value}" for name, value in vars(flags).items() if value]
        command = [flags.peer_python, __file__, *arguments, f"--serve={weights_file}"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.name = json.loads(self.process.stdout.readline() or '""')

    def turn(self, step):
        """Let it run a train step. Returns: seconds and loss."""
        print(step, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def serve(flags):
    """For each step number on stdin, print a line: seconds and loss."""
    name, update = peer_update(flags, flags.serve)
    print(json.dumps(name), flush=True)
    for line in sys.stdin:
        print(json.dumps(timed(update, windows(flags, int(line)))), flush=True)


def compare(flags, weights_file):
    """Compare the losses, take turns, and print the table."""
    name, update = own_update(flags, weights_file)
    peer = Peer(flags, weights_file)
    seconds, peer_seconds = [], []
    for step in range(CHECKED + flags.turns):
        took, loss = timed(update, windows(flags, step))
        seconds.append(took)
        if peer.name:
            took, peer_loss = peer.turn(step)
            peer_seconds.append(took)
            np.testing.assert_allclose(loss, peer_loss, rtol=1e-4, err_msg=f"loss of step {step}")
    tokens = flags.batch_size * flags.window
    print(f"117M shape, batch {flags.batch_size} x {flags.window} tokens, {flags.turns} turns")
    for label, times in [(name, seconds), (peer.name, peer_seconds)]:
        if times:
            print(f"{label:<45} {tokens / statistics.median(times[CHECKED:]):8.1f} tokens/s")
    if not peer.name:
        print(f"{flags.peer_python} cannot import torch and transformers: no comparison")
        return
    pairs = zip(peer_seconds[CHECKED:], seconds[CHECKED:], strict=True)
    ratios = sorted(theirs / ours for theirs, ours in pairs)
    ratio = statistics.median(ratios)
    verdict = "ok" if ratio >= GOAL else f"BELOW {GOAL}"
    print(f"ratio {ratio:.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}  {verdict}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=0, help="0: the default of each side")
    parser.add_argument("--peer_python", default=sys.executable)
    parser.add_argument(
        "--smoke", action="store_true", help="a tiny model alone, to see that it runs"
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.smoke:
        flags.batch_size, flags.window, flags.turns, flags.peer_python = 1, 8, 1, "false"
    if flags.serve:
        serve(flags)
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(flags, Path(folder) / "weights.npz")


if __name__ == "__main__":
    main()
