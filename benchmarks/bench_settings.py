"""Memory and compilations while the settings of sampling change again and again.

    python3 benchmarks/bench_settings.py

Samples from the 1M model, and changes the seed, temperature, top_k, top_p and length before each
sample, as a person does at the prompt. Memory should be flat after the first samples, and the loop
should be compiled once for each cache length. TensorFlow logs each compilation; this counts them.
Needs Linux, for /proc.
"""

import argparse
import os
import random
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))


def resident_megabytes():
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def sample(changes):
    import gpt2

    lm = gpt2.load("1M", models_dir=str(ROOT / "models"), device="cpu")
    rng = random.Random(0)
    print(f"{'changes':>8} {'memory, MB':>11} {'operations':>11}")
    for i in range(1, changes + 1):
        lm.generate(
            "To be, or not to be",
            seed=rng.randrange(2**31),
            temperature=rng.choice([0, 0.5, 1, rng.random()]),
            top_k=rng.choice([0, 1, 5, 40, 100, 600, 1280]),
            top_p=rng.choice([0, 0.3, 0.9, 1]),
            length=rng.choice([1, 20, 60, 100, 200]),
            stop_at_end=False,
        )
        if i in (1, 10, 50, 100, 200, changes):
            n_operations = len(lm.session._session.graph.get_operations())
            print(f"{i:>8} {resident_megabytes():>11.1f} {n_operations:>11}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--smoke", action="store_true", help="a few changes, to see that it runs")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    changes = 3 if flags.smoke else flags.changes
    if flags.child:
        return sample(changes)
    logging = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "device_compiler=1"}
    command = [sys.executable, __file__, "--child", "--changes", str(changes)]
    child = subprocess.run(
        command, env=os.environ | logging, stderr=subprocess.PIPE, text=True, check=True
    )
    compilations = re.findall(r"Compilation of XLA executable time", child.stderr)
    print(f"\ncompilations: {len(compilations)}")


if __name__ == "__main__":
    main()
