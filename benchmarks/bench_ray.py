"""What Ray costs on one machine: a dump without it, next to the same dump with one worker.

    python3 benchmarks/bench_ray.py
    python3 benchmarks/bench_ray.py --model_name 117M --batches 2 --length 40

Each turn makes the same dump in both ways, which take turns at being first. The model is loaded
before, once for each. The ratio is the median of the ratios of single turns, because on a busy
machine nothing else can be relied on. The two files of each turn must be equal.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from gpt2.language_model import LanguageModel
from gpt2.sampling.batch import StopConditions, ThisProcess, batches
from gpt2.sampling.dump import NO_PROMPT
from gpt2.sampling.ray_workers import RayWorkers
from gpt2.sampling.sample_file import FORMATS, Output

GOAL = 0.95  # of the speed without Ray


def make_dump(backend, sampler, path, nsamples, first):
    """Write samples of new numbers to a file; the tokens of a second."""
    wanted = batches(NO_PROMPT, 1, first, 1, first + nsamples - 1, sampler.batch_size)
    out = Output(path, FORMATS["jsonl"], sampler.settings(), {})
    began, n_tokens = time.perf_counter(), 0
    for samples in backend.make(wanted, lambda _: None):
        out.write(samples)
        n_tokens += sum(len(sample.tokens) for sample in samples)
    out.close()
    return n_tokens / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_name", default="1M")
    parser.add_argument("--models_dir", default="models")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=8, help="in a dump")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="once, with a few tokens")
    flags = parser.parse_args()
    if flags.smoke:
        flags.batch_size, flags.batches, flags.length, flags.turns = 16, 2, 8, 1

    sampler = LanguageModel(
        model_name=flags.model_name,
        models_dir=flags.models_dir,
        seed=1,
        batch_size=flags.batch_size,
        length=flags.length,
        top_k=40,
        device="cpu",
    )
    backends = {"without": ThisProcess(), "with": RayWorkers("local", 1)}
    nsamples = flags.batch_size * flags.batches
    print(f"{flags.model_name}, {nsamples} samples of {flags.length}, {flags.batch_size} a batch")
    print(f"{'turn':>5} {'without Ray, tokens/s':>22} {'with, tokens/s':>15} {'ratio':>6}")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for backend in backends.values():
                backend.start(sampler, StopConditions())
            for turn in range(flags.turns + 1):  # the first warms up
                paths = {name: Path(folder, f"{turn}-{name}") for name in backends}
                speeds = {
                    name: make_dump(backend, sampler, paths[name], nsamples, 1 + turn * nsamples)
                    for name, backend in sorted(backends.items(), reverse=turn % 2)
                }
                assert paths["with"].read_bytes() == paths["without"].read_bytes()
                if turn:
                    ratios.append(speeds["with"] / speeds["without"])
                    print(
                        f"{turn:>5} {speeds['without']:>22.0f} {speeds['with']:>15.0f} "
                        f"{ratios[-1]:>6.3f}",
                        flush=True,
                    )
        finally:
            for backend in backends.values():
                backend.close()
    ratio = statistics.median(ratios)
    verdict = "ok" if ratio >= GOAL else f"BELOW {GOAL}"
    print(f"median ratio {ratio:.3f}, {min(ratios):.3f} to {max(ratios):.3f}  {verdict}")


if __name__ == "__main__":
    main()
