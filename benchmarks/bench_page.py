"""How long a page of scores takes to open, and how smoothly it scrolls, in a headless Chromium.

    python3 benchmarks/bench_page.py

The scores are made up, the vocabulary is that of 1M: nothing is computed by a model. A time is the
median of several fresh tabs, from the request until the first tokens have their colours. Then the
page scrolls, and the time between two frames is measured.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from chromium import browser
from scoring import MadeUp, report_of

from gpt2.evaluation.page import page

ROOT = Path(__file__).resolve().parents[1]
GOALS = {200_000: (2.5, 2.0)}  # bytes of text: megabytes of the page, seconds until it is there
# 100 pixels a frame, as a fast wheel does: the longest frame and the median, in milliseconds.
SCROLL = """async () => {
  const gaps = [];
  let last = performance.now();
  for (let k = 0; k < 200; k++) {
    scrollBy(0, 100);
    await new Promise(requestAnimationFrame);
    gaps.push(performance.now() - last);
    last = performance.now();
  }
  gaps.sort((a, b) => a - b);
  return [gaps.at(-1), gaps[100]];
}"""


def measure(chromium, path, turns):
    """Seconds until tokens have colours, for each turn; milliseconds of the frames of a scroll."""
    seconds = []
    for _ in range(turns):
        tab = chromium.new_page(viewport={"width": 1000, "height": 800})
        tab.set_default_timeout(100_000)
        began = time.perf_counter()
        tab.goto(path.as_uri(), wait_until="commit")
        tab.wait_for_selector(".text span", state="attached")
        seconds.append(time.perf_counter() - began)
        frames = tab.evaluate(SCROLL)
        tab.close()
    return seconds, frames


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 200_000, 5_000_000])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--top", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="once, with a short text")
    flags = parser.parse_args()
    sizes, turns = ([2000], 1) if flags.smoke else (flags.sizes, flags.turns)

    sample = (ROOT / "src" / "model.py").read_text(encoding="utf-8")
    with browser() as chromium, tempfile.TemporaryDirectory() as folder:
        print(f"Chromium {chromium.version}")
        print(f"{'text, bytes':>12} {'page, MB':>9} {'opens in, s':>12}  {'range':<13} frames, ms")
        for size in sizes:
            text = (sample * (size // len(sample) + 1))[:size]
            path = Path(folder) / "page.html"
            source = "".join(page(report_of({"text": text}, [MadeUp(top=flags.top)])))
            path.write_text(source, encoding="utf-8", newline="")
            megabytes = path.stat().st_size / 1e6
            seconds, frames = measure(chromium, path, turns)
            median = statistics.median(seconds)
            goal = GOALS.get(size) if not flags.top else None
            good = not goal or (megabytes <= goal[0] and median <= goal[1])
            print(
                f"{size:>12} {megabytes:>9.2f} {median:>12.2f}  "
                f"{min(seconds):.2f} to {max(seconds):.2f}  "
                f"{frames[1]:.0f}, longest {frames[0]:.0f}  "
                f"{'' if not goal else 'ok' if good else f'BEYOND {goal}'}"
            )


if __name__ == "__main__":
    main()
