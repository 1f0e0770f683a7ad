"""Each benchmark still runs. What it measures takes minutes, and is not looked at here."""

import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, shared

BENCHMARKS = sorted(path.name for path in (ROOT / "benchmarks").glob("bench_*.py"))
BENCHMARKS.remove("bench_page.py")  # test_page_in_browser.py runs it where there is a browser


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs(name, tmp_path):
    if name == "bench_download.py" and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    if name == "bench_encode.py":
        shared("corpus")
    command = [sys.executable, str(ROOT / "benchmarks" / name), "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") >= 2
