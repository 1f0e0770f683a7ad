"""Each benchmark runs in its smallest size. What it measures is not checked here."""

import importlib.util
import subprocess
import sys

import pytest
from conftest import ROOT, shared

BENCHMARKS = sorted(path.name for path in (ROOT / "benchmarks").glob("bench_*.py"))


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs(name, tmp_path):
    if name == "bench_encode.py":
        shared("corpus")
    command = [sys.executable, str(ROOT / "benchmarks" / name), "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") >= 2


@pytest.mark.end_to_end
def test_jax_runs_the_compiled_loop(tmp_path):
    script = str(ROOT / "benchmarks" / "gpu_hlo.py")
    for step in ("export", "run"):
        if step == "run" and not importlib.util.find_spec("jax"):
            pytest.skip("JAX is not installed: only the export is tested")
        command = [sys.executable, script, step, str(tmp_path / "loop"), "--smoke"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "2 of 2 samples are those of TensorFlow" in done.stdout
    assert "\n0 copies of a cache" in done.stdout
