"""Make the files of gpt-2-samples/ with the repository's own scripts.

python tools/make_samples.py 1M
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "gpt-2-samples"
PAGE, SHOW = "human-and-synthetic.html", "--format html --top 5"
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


def run(command: str) -> str:
    """What a script prints."""
    return subprocess.run(
        [sys.executable, *command.split()],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ).stdout


def make(name: str, model_name: str) -> None:
    """Write one file."""
    command = f"{files()[name]} --model_name {model_name}"
    reason = " It is small: the repository cannot carry 117M." if model_name == "1M" else ""
    header = (
        f"# Synthetic text: no person wrote it, the model {model_name} did.{reason}\n"
        f"# Flags and seed are those of the command that makes this file again:\n"
        f"# python {command}\n"
        f"# All of gpt-2-samples: make gpt-2-samples MODEL={model_name}\n\n"
    )
    samples = run(command).partition("\n")[2]  # the first line calls them synthetic
    (FOLDER / name).write_text(header + samples, encoding="utf-8", newline="\n")


def make_page(model_name: str) -> None:
    """Write the page that shows a human and a synthetic text next to each other."""
    model = f"--model_name {model_name}"
    script = "src/generate_unconditional_samples.py --nsamples 1 --length 256 --temperature 0.7"
    sample = json.loads(run(f"{script} --seed 2 --format jsonl {model}"))
    with tempfile.TemporaryDirectory() as folder:
        synthetic = Path(folder) / "synthetic.txt"
        synthetic.write_text(sample["text"], encoding="utf-8", newline="\n")
        page = run(f"src/evaluate.py score {FOLDER.name}/human.txt {synthetic} {SHOW} {model}")
    (FOLDER / PAGE).write_text(page, encoding="utf-8", newline="\n")


def make_picture() -> None:
    """Write a picture of the page, if there are playwright and Chromium to take it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("no picture of the page: pip install playwright", file=sys.stderr)
        return
    with sync_playwright() as playwright:
        flags = ["--no-sandbox"]  # as root, there is none; the page is ours
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        tab = browser.new_page(viewport={"width": 1200, "height": 1000})
        tab.goto((FOLDER / PAGE).as_uri())
        tab.locator(".text span").nth(40).click()
        tab.evaluate("scrollTo(0, 90)")
        tab.screenshot(path=FOLDER / PAGE.replace(".html", ".png"))
        browser.close()


if __name__ == "__main__":
    for name in files():
        print(name)
        make(name, sys.argv[1])
    print(PAGE)
    make_page(sys.argv[1])
    make_picture()
