"""Make the files of gpt-2-samples/ with the repository's own scripts.

python tools/make_samples.py 1M
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "gpt-2-samples"
SCRIPTS = {
    "unconditional": "generate_unconditional_samples.py --nsamples 20",
    "conditional": "generate_conditional_samples.py --nsamples 2"
    " --prompts gpt-2-samples/prompts.txt",
}
VARIANTS = {"": "", "-t07": " --temperature 0.7", "-topk40": " --top_k 40"}


def files() -> dict[str, str]:
    """Name of each file -> the flags that make it, without those of the model."""
    return {
        f"{script}{variant}.txt": f"src/{command}{flags} --seed 1"
        for script, command in SCRIPTS.items()
        for variant, flags in VARIANTS.items()
    }


def make(name: str, model_name: str) -> None:
    """Write one file."""
    command = f"{files()[name]} --model_name {model_name}"
    made = subprocess.run(
        [sys.executable, *command.split()],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    reason = " It is small: the repository cannot carry 117M." if model_name == "1M" else ""
    header = (
        f"# Synthetic text: no person wrote it, the model {model_name} did.{reason}\n"
        f"# Flags and seed are those of the command that makes this file again:\n"
        f"# python {command}\n"
        f"# All of gpt-2-samples: make gpt-2-samples MODEL={model_name}\n\n"
    )
    samples = made.stdout.partition("\n")[2]  # the first line calls them synthetic
    (FOLDER / name).write_text(header + samples, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    for name in files():
        print(name)
        make(name, sys.argv[1])
