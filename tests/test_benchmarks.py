"""Each benchmark runs in its smallest size. What it measures is not checked here."""

import importlib.util
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT, shared

FOLDER = ROOT / "benchmarks"
BENCHMARKS = {path.name for path in FOLDER.glob("bench_*.py")}
RUN_HERE = {f"bench_{name}.py" for name in ("batch_agreement", "draw", "evaluate")}


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", sorted(BENCHMARKS - RUN_HERE))
def test_a_benchmark_runs(name, tmp_path):
    if name == "bench_encode.py":
        shared("corpus")
    command = [sys.executable, str(FOLDER / name), "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") >= 2


@pytest.mark.parametrize("name", sorted(RUN_HERE))
def test_a_benchmark_runs_here(tf, run_here, monkeypatch, name):
    """Those that start no process: TensorFlow is imported here already."""
    monkeypatch.setenv("GPT2_ENGINE", "")  # a benchmark may change it
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(tf, "disable_eager_execution", lambda: None)
    path = str(FOLDER / name)
    with tf.Graph().as_default():  # as after disable_eager_execution
        done = run_here(lambda: runpy.run_path(path, run_name="__main__"), path, "--smoke")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") >= 2


@pytest.mark.end_to_end
def test_jax_runs_the_compiled_loop(tmp_path):
    script = str(FOLDER / "gpu_hlo.py")
    for step in ("export", "run"):
        if step == "run" and not importlib.util.find_spec("jax"):
            pytest.skip("JAX is not installed: only the export is tested")
        command = [sys.executable, script, step, str(tmp_path / "loop"), "--smoke"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "2 of 2 samples are those of TensorFlow" in done.stdout
    assert "\n0 copies of a cache" in done.stdout
