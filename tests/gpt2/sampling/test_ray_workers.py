"""Dumps on a Ray cluster: the same bytes as on one machine, whatever dies.

In most tests, driver and workers have the model of fake_model.py, which needs no TensorFlow.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT
from fake_model import FakeModel
from test_sampling_scripts import UNCONDITIONAL, assert_refused, banners

from gpt2.language_model import LanguageModel
from gpt2.sampling.batch import StopConditions, make_samples
from gpt2.sampling.dump import choose_backend, dump
from gpt2.sampling.ray_workers import WAITING, RayWorkers, make_on_worker
from user_error import ClusterError, UserError

ray = pytest.importorskip("ray", reason="requirements-ray.txt is not installed")
HELPERS = ROOT / "tests" / "helpers"
FLAGS = ["--model_name=1M", "--device=cpu", "--seed=9", "--batch_size=16"]
FAST = {  # Ray notices within a second that a node is dead
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "200",
    "RAY_health_check_failure_threshold": "5",
}
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32}


# Without a cluster --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", 2], "--workers needs --ray"),
        (["--ray", "local", "--workers", 0], "workers must be at least 1, got 0"),
        (["--ray", "local", "--gpus_per_worker", "nan"], "gpus_per_worker must be at least 0"),
        (["--ray", "http://h"], "ray must be local, auto, HOST:PORT or ray://HOST:PORT, got 'h"),
        (["--ray", "local", "--gpus_per_worker", 1], "gpus_per_worker must be 0 with --device cpu"),
    ],
)
def test_wrong_flags_are_one_line(call_here, flags, message):
    done = call_here(UNCONDITIONAL, *FLAGS, *flags, model=FakeModel)
    assert_refused(done, message)


def test_a_machine_without_ray_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--ray needs Ray: .*pip install -r requirements-ray.txt"):
        choose_backend("local", None, None, None)


def test_a_worker_without_the_model_or_with_another_names_its_node(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "")
    for folder, message in [
        (ROOT / "models" / "1M", r".*1M is another model: fingerprint \w+, not 0+$"),
        (tmp_path / "lost", f"no model in {tmp_path}/lost; "),
    ]:
        job = json.dumps([{"model_name": str(folder), "seed": 9}, "0" * 16, 1])
        with pytest.raises(ClusterError, match=f"^node {socket.gethostname()}: {message}"):
            make_on_worker(job, StopConditions(), None)


def workers_with(nodes, workers=None, cpus=None, gpus=None, first_ready=0):
    """Workers of a Ray that makes a batch when its samples are asked for."""

    def wait(results, num_returns=1, timeout=None):
        ready = results[first_ready:][:1] or results[:1]
        return ready, [result for result in results if result not in ready]

    made = RayWorkers("local", workers, cpus, gpus)
    nodes = [{"Alive": True, "Resources": node} for node in nodes]
    nodes.append({"Alive": False, "Resources": {"CPU": 1.0, "GPU": 1.0}})
    made._ray = SimpleNamespace(nodes=lambda: nodes, wait=wait, get=lambda result: result())
    made.start = lambda lm, ends, watched: None
    return made


@pytest.mark.parametrize(
    ("nodes", "device", "flags", "share", "room"),
    [
        ([{"CPU": 4.0}, {"CPU": 2.0}, {"memory": 9.0}], "auto", (None, None), (2, 0), 3),
        ([{"CPU": 4.0}, {"CPU": 2.0}], "cpu", (1, None), (1, 0), 6),
        ([{"CPU": 4.0}, {"CPU": 8.0, "GPU": 2.0}], "auto", (None, None), (1, 1), 2),
        ([{"CPU": 8.0, "GPU": 2.0}], "gpu", (None, 0.5), (1, 0.5), 4),
        ([{"CPU": 8.0, "GPU": 2.0}], "cpu", (None, None), (8, 0), 1),
        ([{"CPU": 4.0}], "cpu", (9, None), (9, 0), 0),  # it waits for a larger node
    ],
)
def test_workers_share_the_living_nodes(nodes, device, flags, share, room):
    workers = workers_with(nodes, None, *flags)
    workers._settle_shares(device)
    assert (workers._cpus, workers._gpus, workers._room()) == (*share, room)


def test_a_cluster_without_a_living_node_ends_the_dump():
    with pytest.raises(ClusterError, match=r"^--ray local: no node of the cluster is alive$"):
        list(workers_with([]).make([None]))


@pytest.mark.parametrize("first_ready", [0, 1, 2])
def test_batches_that_are_ready_early_wait_for_their_turn(first_ready):
    workers, submitted = workers_with([{"CPU": 3.0}], 3, 1, 0, first_ready), []

    def submit(batch):
        submitted.append(batch)
        return lambda: [SimpleNamespace(number=batch, tokens=[])]

    workers._submit = submit
    for n_made, [[sample]] in enumerate(workers.make(range(100))):
        assert sample.number == n_made
        assert len(submitted) <= n_made + 3 * WAITING
    assert n_made == 99


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("OutOfMemoryError", ["Low on memory.\nMemory on\nmore: a. b"], "Low on memory.; more: a"),
        ("WorkerCrashedError", [], "The worker died unexpectedly while executing this task"),
        (None, ["Connection reset"], "Connection reset"),
    ],
)
def test_errors_of_ray_are_one_line_and_the_dump_can_be_resumed(tmp_path, name, arguments, reason):
    kind = getattr(ray.exceptions, name) if name else ConnectionError
    path, workers = tmp_path / "out", workers_with([{"CPU": 1.0}], 1, 1, 0)

    def make(batch):
        if 5 in batch.sample_indices:
            raise kind(*arguments)
        *_, samples = make_samples(lm, batch, StopConditions())
        return samples

    workers._submit = lambda batch: lambda: make(batch)
    with FakeModel(model_name="1M", seed=9, batch_size=2) as lm:
        with pytest.raises(ClusterError) as raised:
            dump(lm, nsamples=8, output=str(path), backend=workers)
        assert str(raised.value).startswith(f"--ray local: {reason}")
        assert "\n" not in str(raised.value)
        assert n_samples(path) == 4
        dump(lm, nsamples=8, output=str(path))
    assert banners(path.read_text(encoding="utf-8")) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_variables_that_change_the_last_digit_reach_the_workers(monkeypatch):
    calls = []
    fake = SimpleNamespace(init=lambda *_, **options: calls.append(options), shutdown=lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    variables = {"GPT2_ENGINE": "xla", "TF_ENABLE_ONEDNN_OPTS": "0"}
    monkeypatch.setattr(os, "environ", dict(variables))
    monkeypatch.setitem(sys.modules, "ray", fake)
    workers = RayWorkers("h:1", None, None, None)
    workers._connect()
    workers.close()
    assert calls[0]["runtime_env"]["env_vars"] == variables


# With real processes ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of a driver and its workers with the fake model. Ray's files must go, and none be at home."""
    home = tmp_path_factory.mktemp("home")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short, for sockets
    path = os.pathsep.join(map(str, [HELPERS / "fake_worker", HELPERS, ROOT / "src"]))
    ours = {"RAY_TMPDIR": folder, "TMPDIR": folder, "HOME": str(home), "PYTHONPATH": path}
    yield os.environ | FAST | ours
    assert not list(home.glob(".ray*"))
    shutil.rmtree(folder)


def command(*flags):
    flags = [*FLAGS, *map(str, flags)]
    return [sys.executable, str(HELPERS / "fake_model.py"), UNCONDITIONAL.stem, *flags]


@contextlib.contextmanager
def running(path, environment, *flags):
    """A driver in a process group of its own, which has begun to write samples at `path`."""
    before = n_samples(path)
    with (path.parent / "printed").open("w+b") as printed:
        options = {"stdout": printed, "stderr": printed, "start_new_session": True}
        with subprocess.Popen(command("--output", path, *flags), env=environment, **options) as own:
            try:
                wait_until(lambda: n_samples(path) > before, own, path)
                yield own
            finally:
                own.kill()


def n_samples(path):
    return path.read_text(encoding="utf-8").count(" SAMPLE ") if path.exists() else 0


def wait_until(holds, process, path):
    """Wait, while the process that writes `path` runs."""
    while not holds():
        if process.poll() is not None:
            printed = (path.parent / "printed").read_text(encoding="utf-8")
            if "timed out during startup" in printed:
                pytest.skip("Ray gave up its own start, for which it has a fixed limit of 30 s")
            pytest.fail(printed)
        time.sleep(0.05)


@pytest.mark.end_to_end
def test_an_address_where_no_ray_answers_is_one_line(environment):
    with socket.create_server(("", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        cases = [  # at the same time, because each waits for some seconds
            ("auto", {"RAY_ADDRESS": address}, "(RAY_ADDRESS): "),
            (f"ray://{address}", {}, ": ray client connection timeout; if it wants another token"),
        ]
        drivers = [
            subprocess.Popen(command("--ray", to), env=environment | more, stderr=subprocess.PIPE)
            for to, more, _ in cases
        ]
        for driver, (to, _, reason) in zip(drivers, cases, strict=True):
            with driver:
                (line,) = driver.stderr.read().decode().splitlines()
            assert driver.returncode == 1
            assert f"--ray {to}" in line and reason in line


@pytest.mark.end_to_end
def test_a_dump_survives_the_death_of_a_node_and_of_the_driver(environment, call_here, tmp_path):
    path, pipe = tmp_path / "out", subprocess.PIPE
    helper = [sys.executable, str(HELPERS / "ray_cluster.py")]
    streams = {"stdin": pipe, "stdout": pipe, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(helper, env=environment | TOKEN, **streams) as cluster:
        address = cluster.stdout.readline().strip()
        if not address:
            pytest.skip("Ray gave up its own start, for which it has a fixed limit of 30 s")
        with running(path, environment | TOKEN, "--ray", address) as driver:
            wrong = environment | TOKEN | {"RAY_AUTH_TOKEN": "cd" * 32}
            refused = subprocess.Popen(
                command("--nsamples", 1, "--ray", address), env=wrong, stderr=pipe
            )
            cluster.stdin.write("kill a node\n")
            cluster.stdin.flush()
            assert cluster.stdout.readline() == "killed\n"
            more = n_samples(path) + 400  # more than were under way
            wait_until(lambda: n_samples(path) > more, driver, path)
        flags = ["--nsamples", n_samples(path) + 40]
        resume = command(*flags, "--output", path, "--ray", address)
        subprocess.run(resume, env=environment | TOKEN, check=True, capture_output=True)
        cluster.stdin.close()
        with refused:
            (line,) = refused.stderr.read().decode().splitlines()
        assert refused.returncode == 1
        assert line.endswith("wants another token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN")
    alone = call_here(UNCONDITIONAL, *FLAGS, *flags, model=FakeModel)
    assert path.read_text(encoding="utf-8") == alone.stdout


@pytest.mark.end_to_end
def test_a_ray_that_was_started_here_ends_with_the_dump(environment, tmp_path):
    path, folder = tmp_path / "out", Path(environment["RAY_TMPDIR"])

    def interrupt(driver):  # as a terminal does
        os.killpg(driver.pid, signal.SIGINT)

    for end, status, printed in [
        (subprocess.Popen.kill, -signal.SIGKILL, "--ray local: killed, or the cluster is gone"),
        (interrupt, 130, " samples, "),
    ]:
        with running(path, environment, "--ray", "local") as driver:
            assert len(list(folder.glob("gpt2-ray-*"))) == 1
            end(driver)
            assert driver.wait(timeout=600) == status
        while list(folder.glob("gpt2-ray-*")):
            time.sleep(0.05)
        (line,) = (tmp_path / "printed").read_text(encoding="utf-8").splitlines()
        assert printed in line
    text = path.read_text(encoding="utf-8")
    made = banners(text)
    assert made == [*range(1, len(made) + 1)] and len(made) % 16 == 0 and text.endswith("\n")


@pytest.mark.end_to_end
def test_ray_makes_the_bytes_that_one_process_makes(environment, tmp_path):
    options = {"seed": 9, "length": 24, "top_k": 50, "batch_size": 16}  # 16 are not compiled
    flags = ["--model_name=1M", "--device=cpu", *(f"--{k}={v}" for k, v in options.items())]
    own = environment | {"PYTHONPATH": ""}
    with_ray = [sys.executable, UNCONDITIONAL, *flags, "--nsamples", "40", "--ray", "local"]
    with subprocess.Popen(with_ray, env=own, stdout=subprocess.PIPE) as driver:
        with LanguageModel(model_name="1M", device="cpu", **options) as lm:
            dump(lm, nsamples=40, output=str(tmp_path / "expected"))
        assert driver.stdout.read() == (tmp_path / "expected").read_bytes()
