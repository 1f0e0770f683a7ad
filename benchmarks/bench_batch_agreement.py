"""How often another batch size, the other loop or bfloat16 changes the choice of a token.

The same samples are generated one at a time by the loop that XLA compiles; then in batches, one at
a time by TensorFlow's own operations, and in bfloat16. Their random numbers are the same, so a
difference is due to rounding. What follows the first token that differs is another text, and is
not counted.
"""

import argparse
import os
import sys
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from gpt2.language_model import LanguageModel


def samples(flags, batch_size, engine="", dtype="float32"):
    """The token ids of each sample. GPT2_ENGINE is set to `engine`."""
    os.environ["GPT2_ENGINE"] = engine
    sampler = LanguageModel(
        model_name=flags.model_name,
        models_dir=flags.models_dir,
        seed=flags.seed,
        batch_size=batch_size,
        length=flags.length,
        temperature=flags.temperature,
        top_k=flags.top_k,
        top_p=flags.top_p,
        device=flags.device,
        dtype=dtype,
    )
    if flags.length is None:
        sampler.change(length=sampler.hparams.n_ctx)
    rows = []
    for first in range(1, flags.nsamples + 1, batch_size):
        numbers = range(first, min(first + batch_size, flags.nsamples + 1))
        pieces = list(sampler.stream_tokens([sampler.context(None)] * len(numbers), numbers))
        rows += [[*chain(*parts)] for parts in zip(*pieces, strict=True)]
    return rows


def agreement(row, other):
    """How many tokens are the same before the first that differs."""
    tipped = (i for i, (a, b) in enumerate(zip(row, other, strict=True)) if a != b)
    return next(tipped, len(row))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model_name", default="1M")
    parser.add_argument("--models_dir", default="models")
    parser.add_argument("--batch_sizes", type=int, nargs="*", default=[7, 32])
    parser.add_argument("--nsamples", type=int, default=448)
    parser.add_argument("--length", type=int, help="n_ctx unless given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=1)
    parser.add_argument("--top_k", type=int, default=0)
    parser.add_argument("--top_p", type=float, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--smoke", action="store_true", help="a tiny case, to see that it runs")
    flags = parser.parse_args()
    if flags.smoke:
        flags.batch_sizes, flags.nsamples, flags.length = [], 2, 4

    alone = samples(flags, 1, "xla")
    if not flags.smoke:
        assert samples(flags, 1, "xla") == alone  # else something else matters, too
    shape = f"{len(alone)} samples of {len(alone[0])} tokens"
    print(f"model {flags.model_name} on {flags.device}, {shape}")
    print(f"{'':<13} {'samples that differ':>20} {'tokens':>9} {'tipped in a million':>20}")
    others = {f"batch of {n}": (n,) for n in flags.batch_sizes}
    others |= {"not compiled": (1, "tensorflow"), "bfloat16": (1, "", "bfloat16")}
    for label, other in others.items():
        pairs = zip(alone, samples(flags, *other), strict=True)
        same = [agreement(row, other) for row, other in pairs]
        differ = sum(n < len(alone[0]) for n in same)
        compared = sum(same) + differ
        print(
            f"{label:<13} {differ:>11} ({differ / len(alone):6.1%}) {compared:>9} "
            f"{1e6 * differ / compared:>20.1f}"
        )


if __name__ == "__main__":
    main()
