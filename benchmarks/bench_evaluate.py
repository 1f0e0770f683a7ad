"""How fast windows are scored, compared with a bare forward pass.

    python3 benchmarks/bench_evaluate.py

A forward pass up to the logits and the scoring of the same windows take turns on one graph with
random weights of the 117M shape. The ratio is the median of the ratios of single turns, because
only that is reliable on a busy machine. The scores are checked against NumPy before they are timed.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import narrow_weights
from gpt2 import scorer
from gpt2.tensorflow_session import choose_device, import_tensorflow
from hparams import HParams

GOAL = 0.9  # of the speed of the bare pass


def check(logits, targets, scores):
    """Fail unless the scores of one window are those of its logits [sequence, n_vocab]."""
    chosen = np.take_along_axis(logits, targets[:, None], axis=-1)
    p = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
    p /= p.sum(-1, keepdims=True)
    logprob = np.log(np.take_along_axis(p, targets[:, None], axis=-1))[:, 0]
    np.testing.assert_allclose(scores["logprob"], logprob, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores["entropy"], -(p * np.log(p)).sum(-1), rtol=1e-4)
    # Logits that nearly tie with the token's may be rounded to either side of it.
    near = 1e-5 * np.abs(logits).max(-1, keepdims=True)
    assert np.all(scores["rank"] > (logits > chosen + near).sum(-1))
    assert np.all(scores["rank"] <= (logits > chosen - near).sum(-1) + 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--top", type=int, default=0, help="alternatives to list for each token")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--smoke", action="store_true", help="once, with a tiny model")
    flags = parser.parse_args()

    tf = import_tensorflow()
    tf.disable_eager_execution()
    hparams = HParams(n_embd=12, n_layer=2) if flags.smoke else HParams()
    if flags.smoke:
        flags.window, flags.turns = 64, 1
    with tf.variable_scope("", custom_getter=narrow_weights.storage(flags.dtype)):
        graph = scorer.build_scores(hparams, flags.top)
    bare = graph.logits.op  # computed, and not copied out
    rng = np.random.default_rng(0)
    config, _ = choose_device("auto", tf)
    with tf.Session(config=config) as session:
        session.run(tf.global_variables_initializer())
        ids = rng.integers(0, hparams.n_vocab, [1, 65])
        logits, scores = session.run([graph.logits, graph.scores], {graph.ids: ids})
        check(logits[0], ids[0, 1:], {name: value[0] for name, value in scores.items()})

        shape = f"{hparams.n_params() / 1e6:.1f}M parameters"
        print(f"TensorFlow {tf.__version__}, {shape}, windows of {flags.window} tokens")
        print(f"{'batch':>5} {'bare, tokens/s':>15} {'scored, tokens/s':>17} {'ratio':>6}  range")
        for batch_size in flags.batch_sizes:
            ids = rng.integers(0, hparams.n_vocab, [batch_size, flags.window + 1])
            seconds = {"bare": [], "scored": []}
            for _ in range(flags.turns + 1):
                for name, fetches in [("bare", bare), ("scored", graph.scores)]:
                    began = time.perf_counter()
                    session.run(fetches, {graph.ids: ids})
                    seconds[name].append(time.perf_counter() - began)
            pairs = zip(seconds["bare"][1:], seconds["scored"][1:], strict=True)  # one warms up
            ratios = sorted(a / b for a, b in pairs)
            ratio = statistics.median(ratios)
            speeds = [
                batch_size * flags.window / statistics.median(seconds[name][1:])
                for name in ("bare", "scored")
            ]
            verdict = "ok" if ratio >= GOAL else f"BELOW {GOAL}"
            print(
                f"{batch_size:>5} {speeds[0]:>15.0f} {speeds[1]:>17.0f} {ratio:>6.2f}  "
                f"{ratios[0]:.2f} to {ratios[-1]:.2f}  {verdict}"
            )


if __name__ == "__main__":
    main()
