"""How long one token takes to be drawn from its logits, by batch and settings.

    python3 benchmarks/bench_draw.py

Random logits of the released vocabulary; the loop around the draw does nothing else. Median of nine
runs.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import engine  # noqa: E402

engine.set_environment()

import numpy as np  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402

import sample  # noqa: E402
from gpt2 import tensorflow_session  # noqa: E402

SETTINGS = [(0, 1.0), (40, 1.0), (40, 0.9), (0, 0.9)]  # top_k, top_p


def milliseconds(batch_size, n_vocab, compiled, n_draws, n_runs):
    """The median time of a draw for each of SETTINGS."""
    config, _ = tensorflow_session.choose_device("cpu", tf)
    with tf.Graph().as_default(), tf.Session(config=config) as sess:
        random = np.random.default_rng(0)
        logits = tf.placeholder(tf.float32, [batch_size, n_vocab])
        top_k, top_p = tf.placeholder(tf.int32, []), tf.placeholder(tf.float32, [])
        uniform = tf.constant(random.random([n_draws, batch_size]), tf.float32)

        @tf.function(jit_compile=compiled, autograph=False)
        def draws(logits, top_k, top_p):
            def body(i, token):
                # Nothing is added, but so XLA cannot take a draw out of the loop.
                x = logits + tf.cast(token[:, None] < -1, tf.float32)
                return i + 1, sample.sample_token(x, uniform[i], 1.0, top_k, top_p)

            start = [0, tf.zeros([batch_size], tf.int32)]
            return tf.while_loop(lambda i, _: i < n_draws, body, start)[1]

        tokens = draws(logits, top_k, top_p)
        feed = {logits: random.normal(0, 3, [batch_size, n_vocab])}
        found = []
        for k, p in SETTINGS:
            feed |= {top_k: k, top_p: p}
            times = []
            for _ in range(n_runs + 1):  # the first is not counted
                start = time.perf_counter()
                sess.run(tokens, feed)
                times.append(time.perf_counter() - start)
            found.append(1000 * statistics.median(times[1:]) / n_draws)
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="only check that this runs")
    smoke = parser.parse_args().smoke
    n_vocab, n_draws, n_runs = (700, 2, 1) if smoke else (50257, 20, 9)
    print(f"processor: {engine.processor()}; milliseconds for a draw of the whole batch")
    print("| batch | " + " | ".join(f"top_k {k}, top_p {p:g}" for k, p in SETTINGS) + " |")
    print("|---" * (len(SETTINGS) + 1) + "|")
    batches = [(1, True), (2, False), (8, False), (32, False)]
    for batch_size, compiled in batches[:2] if smoke else batches:
        found = milliseconds(batch_size, n_vocab, compiled, n_draws, n_runs)
        name = f"{batch_size}{', XLA' if compiled else ''}"
        print(f"| {name} | " + " | ".join(f"{ms:.2f}" for ms in found) + " |", flush=True)


if __name__ == "__main__":
    main()
