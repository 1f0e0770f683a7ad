"""Dumps on a Ray cluster: the same bytes as on one machine, whatever dies."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT
from fake_model import FakeModel
from test_sampling_scripts import CONDITIONAL, UNCONDITIONAL, assert_refused, banners

from gpt2.language_model import LanguageModel
from gpt2.sampling import ray_address
from gpt2.sampling.batch import StopConditions
from gpt2.sampling.dump import dump
from gpt2.sampling.ray_address import ClusterError, check_address
from gpt2.sampling.ray_workers import Job, RayWorkers, make_on_worker
from user_error import UserError

SAMPLING = {"seed": 9, "length": 24, "top_k": 50, "batch_size": 16}  # 16 are not compiled
FLAGS = ["--model_name=1M", "--device=cpu", *(f"--{k}={v}" for k, v in SAMPLING.items())]
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32}


# Without a cluster --------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["", "here", "localhost", "::", "h:1e9", "h:99999", "http://h"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UserError, match=r"^ray must be local, auto, HOST:PORT or ray://HOST:PORT"):
        check_address(address)


@pytest.fixture
def ray_is_here():
    pytest.importorskip("ray", reason="requirements-ray.txt is not installed")


@pytest.mark.usefixtures("ray_is_here")
@pytest.mark.parametrize("script", [UNCONDITIONAL, CONDITIONAL])
def test_an_address_where_nobody_answers_is_one_line(call_here, script):
    flags = ["--prompts", ROOT / "gpt-2-samples" / "prompts.txt"] if script is CONDITIONAL else []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = call_here(script, *flags, *FLAGS, "--ray", f"ray://127.0.0.1:{port}")
    message = f"{script.name}: --ray ray://127.0.0.1:{port}: no answer: Connection refused\n"
    assert (done.stderr, done.returncode) == (message, 1)


@pytest.mark.usefixtures("ray_is_here")
@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None])
def test_a_server_that_is_not_ray_is_one_line(monkeypatch, said):
    monkeypatch.setattr(ray_address, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                if said is None:  # nothing, for longer than anybody waits
                    done.wait()
                else:
                    connection.sendall(said)

        done = threading.Event()
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ClusterError, match=r"(is not Ray|no answer: timed out|reset by peer)$"):
            check_address(f"127.0.0.1:{server.getsockname()[1]}")
        done.set()
        thread.join()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", 2], "--workers needs --ray"),
        (["--cpus_per_worker", 2], "--cpus_per_worker needs --ray"),
        (["--gpus_per_worker", 0.5], "--gpus_per_worker needs --ray"),
        (["--ray", "local", "--workers", 0], "workers must be at least 1, got 0"),
        (["--ray", "local", "--gpus_per_worker", "nan"], "gpus_per_worker must be at least 0"),
    ],
)
def test_wrong_flags_are_one_line(call_here, flags, message):
    assert_refused(call_here(UNCONDITIONAL, *FLAGS, *flags, model=FakeModel), message)


def test_a_machine_without_ray_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(ray_address.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--ray needs Ray: .*pip install -r requirements-ray.txt"):
        check_address("local")


def test_a_worker_without_the_model_or_with_another_names_its_node(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "")
    options = {"model_name": "1M", "models_dir": str(ROOT / "models"), "seed": 9, "length": 24}
    settings = LanguageModel(**options).settings() | {"fingerprint": "0" * 16}
    node = f"^node {socket.gethostname()}: "
    for changed, message in [
        ({}, r".*1M is another model: fingerprint \w+, not 0+$"),
        ({"model_name": "lost", "models_dir": str(tmp_path)}, f"no model in {tmp_path}/lost; "),
    ]:
        pairs = tuple((options | changed).items())
        with pytest.raises(ClusterError, match=node + message):
            make_on_worker(Job(pairs, StopConditions(), tuple(settings.items()), 1), None)


@pytest.mark.usefixtures("ray_is_here")
@pytest.mark.parametrize(
    ("nodes", "device", "flags", "share", "room"),
    [
        ([{"CPU": 4.0}, {"CPU": 2.0}, {"memory": 9.0}], "auto", {}, (2, 0), 3),
        ([{"CPU": 4.0}, {"CPU": 2.0}], "cpu", {"cpus_per_worker": 1}, (1, 0), 6),
        ([{"CPU": 4.0}, {"CPU": 8.0, "GPU": 2.0}], "auto", {}, (1, 1), 2),
        ([{"CPU": 8.0, "GPU": 2.0}], "gpu", {"gpus_per_worker": 0.5}, (1, 0.5), 4),
        ([{"CPU": 8.0, "GPU": 2.0}], "cpu", {}, (8, 0), 1),
        ([{"CPU": 4.0}], "cpu", {"cpus_per_worker": 9}, (9, 0), 1),  # it waits for a larger node
    ],
)
def test_workers_share_the_nodes(nodes, device, flags, share, room):
    workers = RayWorkers("auto", **flags)
    alive = [{"Alive": True, "Resources": node} for node in nodes]
    dead = {"Alive": False, "Resources": {"CPU": 1.0, "GPU": 1.0}}
    workers._ray = SimpleNamespace(nodes=lambda: [*alive, dead])
    workers._settle_shares(device)
    assert (workers._cpus, workers._gpus, workers._room()) == (*share, room)


# With real processes ------------------------------------------------------------------------------


@pytest.fixture
def ray_environment(ray_is_here, tmp_path):
    """A place for the files of Ray and for a home, which must stay empty; short, for sockets."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp" if Path("/tmp").is_dir() else None)
    home = tmp_path / "home"
    home.mkdir()
    yield os.environ | {"RAY_TMPDIR": folder, "TMPDIR": folder, "HOME": str(home)}
    shutil.rmtree(folder, ignore_errors=True)
    assert not list(home.glob(".ray*"))


@contextlib.contextmanager
def running(path, environment, *flags):
    """A script that writes a dump at `path`, which has begun to grow; in a group of its own."""
    command = [sys.executable, str(UNCONDITIONAL), *FLAGS, "--output", str(path), *flags]
    before = path.stat().st_size if path.exists() else 0
    for _ in range(3):  # on a busy machine, Ray gives up its own start after 30 s
        with (path.parent / "stderr").open("w") as stderr:
            process = subprocess.Popen(
                command, env=environment, stderr=stderr, start_new_session=True
            )
        with process:
            try:
                if has_begun(path, before, process):
                    yield process
                    return
            finally:
                process.kill()
    reason = (path.parent / "stderr").read_text()
    skip_if_ray_is_too_slow("timed out during startup" in reason)
    pytest.fail(reason)


def skip_if_ray_is_too_slow(holds):
    if holds:
        pytest.skip("Ray gave up its own start, for which it has a fixed limit of 30 s")


def has_begun(path, before, process):
    """Wait for the first sample after the first `before` bytes; False if the process ends first."""
    while process.poll() is None:
        if path.exists() and " SAMPLE " in path.read_text("utf-8")[before:]:
            return True
        time.sleep(0.05)
    return False


def wait_until(holds, process):
    while not holds():
        assert process.poll() is None, "it has ended"
        time.sleep(0.05)


def expected(folder, n_samples):
    """What a dump of one machine without Ray holds."""
    with LanguageModel(model_name="1M", device="cpu", **SAMPLING) as model:
        dump(model, nsamples=n_samples, output=str(folder / "expected"))
    return (folder / "expected").read_bytes()


@pytest.mark.end_to_end
def test_a_dump_survives_the_death_of_a_node_and_of_the_driver(ray_environment, tmp_path):
    environment = ray_environment | TOKEN
    path, pipe = tmp_path / "out", subprocess.PIPE
    helper = [sys.executable, str(ROOT / "tests" / "helpers" / "ray_cluster.py")]
    options = {"stdin": pipe, "stdout": pipe, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(helper, env=environment, **options) as cluster:
        address = cluster.stdout.readline().strip()
        skip_if_ray_is_too_slow(not address)
        with running(path, environment, "--ray", address) as driver:
            cluster.stdin.write("kill a node\n")
            cluster.stdin.flush()
            assert cluster.stdout.readline() == "killed\n"
            n_samples = path.read_text(encoding="utf-8").count(" SAMPLE ")
            more = f" SAMPLE {n_samples + 200} "  # more than was under way
            wait_until(lambda: more in path.read_text(encoding="utf-8"), driver)
        n_samples = path.read_text(encoding="utf-8").count(" SAMPLE ") + 40
        command = [sys.executable, str(UNCONDITIONAL), *FLAGS, "--ray", address]
        command += ["--output", str(path), "--nsamples", str(n_samples)]
        wrong = environment | {"RAY_AUTH_TOKEN": "cd" * 32}
        done = subprocess.run(command, env=wrong, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1 and "it wants another token; set RAY_" in done.stderr
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        *waits, last = done.stderr.splitlines()
        assert " samples, " in last
        assert all(line.startswith("still waiting for a node") for line in waits)
        cluster.stdin.close()
    assert path.read_bytes() == expected(tmp_path, n_samples)


@pytest.mark.end_to_end
def test_a_ray_that_was_started_here_ends_with_the_dump(ray_environment, tmp_path):
    path, folder = tmp_path / "out", Path(ray_environment["TMPDIR"])

    def end(driver, stop, status):
        assert len(list(folder.glob("gpt2-ray-*"))) == 1
        stop(driver)
        assert driver.wait(timeout=600) == status
        while list(folder.iterdir()):
            time.sleep(0.05)

    with running(path, ray_environment, "--ray", "local") as driver:
        end(driver, lambda driver: kill_raylet(driver.pid), 1)
    *_, last = (tmp_path / "stderr").read_text().splitlines()
    assert "--ray local: " in last
    with running(path, ray_environment, "--ray", "local") as driver:
        end(driver, lambda driver: driver.kill(), -signal.SIGKILL)
    with running(path, ray_environment, "--ray", "local") as driver:
        end(driver, lambda driver: os.killpg(driver.pid, signal.SIGINT), 130)  # as a terminal does
    (line,) = (tmp_path / "stderr").read_text().splitlines()
    assert " samples, " in line
    text = path.read_text(encoding="utf-8")
    made = banners(text)
    assert made == [*range(1, len(made) + 1)] and len(made) % 16 == 0 and text.endswith("\n")


def kill_raylet(driver):
    """Kill Ray's process of a node that a driver has started."""
    found = subprocess.run(["pgrep", "-P", str(driver), "-x", "raylet"], capture_output=True)
    os.kill(int(found.stdout), signal.SIGKILL)
