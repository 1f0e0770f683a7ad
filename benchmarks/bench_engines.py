"""Tokens per second of each engine that can run the products: the table behind src/engine.py.

    python3 benchmarks/bench_engines.py

An engine is XLA or TensorFlow for the loop, with oneDNN or without, or TensorFlow with packed
weights. Cases, weights and turns are those of bench_decode.py, and so is what it says about an idle
machine. `rule` is what engine.py chooses there, as a share of the best.
"""

import contextlib
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import bench_decode
from bench_decode import ROOT, THREADS, Case, Worker, options, processor, prompts

CASES = "1x48,2x48,4x48,8x48,12x48,16x48,32x48,prefill512"
SETTINGS = {
    f"{loop}{' oneDNN' * one_dnn}": {"GPT2_ENGINE": loop, "TF_ENABLE_ONEDNN_OPTS": str(one_dnn)}
    for loop in ("xla", "tensorflow")
    for one_dnn in (0, 1)
} | {"packed oneDNN": {"GPT2_ENGINE": "packed", "TF_ENABLE_ONEDNN_OPTS": "1"}}


def choices(batch_sizes, dtype):
    """The name of what the rule chooses for each batch size, in a process as the scripts are."""
    code = (
        "import sys, os; sys.path.append(sys.argv.pop(1)); import engine\n"
        "from gpt2.tensorflow_session import import_tensorflow; import_tensorflow()\n"
        "from tensorflow.python.util._pywrap_util_port import IsMklEnabled\n"
        "for n in sys.argv[1:]:\n"
        f" print(engine.choose(int(n), {dtype!r}, constant=True), 'oneDNN' * IsMklEnabled())\n"
    )
    command = [sys.executable, "-c", code, str(ROOT / "src"), *map(str, batch_sizes)]
    unset = {name for settings in SETTINGS.values() for name in settings}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return [line.strip() for line in done.stdout.splitlines()]


def print_table(workers, flags):
    rules = choices([case.batch for case in flags.cases], flags.dtype)
    print(f"\n{'tokens/s':<11}{''.join(f'{name:>18}' for name in workers)}  rule")
    for case, rule in zip(flags.cases, rules, strict=True):
        texts = prompts(case.batch, case.context, flags.hparams.n_vocab)
        speeds = {name: [] for name in workers}
        for round_ in range(-1, flags.rounds):
            for name, worker in workers.items():
                seconds, _ = worker.run(texts, case.tokens)
                if round_ >= 0:  # the first compiles
                    speeds[name].append(case.worth() / seconds)
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        cells = "".join(f"{median:18.1f}" for median in medians.values())
        share = medians.get(rule, math.nan) / max(medians.values())
        print(f"{case.label:<11}{cells}  {rule}: {share:.0%}", flush=True)


def measure(flags):
    print(f"{processor()}, {THREADS} cores, {flags.hparams.n_params() / 1e6:.1f}M parameters")
    flags.cases = [Case.parse(label, flags.hparams) for label in flags.cases.split(",")]
    flags.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        workers = {
            name: Worker("ours", flags, stack, SETTINGS[name]) for name in flags.engines.split(",")
        }
        print_table(workers, flags)


def main():
    parser = options(__doc__, CASES)
    parser.add_argument("--engines", default=",".join(SETTINGS), help="which of them take turns")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if flags.smoke:
            flags.hparams = bench_decode.TINY
            flags.folder, flags.cases, flags.rounds = Path(folder), "2x3", 1
            flags.engines = "packed oneDNN"
        measure(flags)


if __name__ == "__main__":
    main()
