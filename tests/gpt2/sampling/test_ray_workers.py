"""Dumps on a Ray cluster: the same bytes as on one machine, whatever dies."""

import contextlib
import fcntl
import importlib
import os
import random
import re
import runpy
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT
from fake_model import FakeModel
from fake_ray import FakeRay
from test_sampling_scripts import CONDITIONAL, UNCONDITIONAL, assert_refused, banners

from gpt2 import language_model
from gpt2.language_model import LanguageModel
from gpt2.sampling import ray_workers
from gpt2.sampling.batch import Batch, Ends
from gpt2.sampling.dump import dump
from gpt2.sampling.ray_workers import ClusterError, Queue, RayWorkers, Worker, check_address
from hparams import UserError

SAMPLING = {"seed": 9, "length": 24, "top_k": 50, "batch_size": 16}  # 16 are not compiled
FLAGS = ["--model_name=1M", "--device=cpu", *(f"--{k}={v}" for k, v in SAMPLING.items())]
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32}


# Without a cluster --------------------------------------------------------------------------------


def test_batches_come_back_in_order_and_a_few_are_open():
    wanted = [Batch([i], [None]) for i in range(40)]
    queue, rng, out, held = Queue(wanted), random.Random(1), [], []
    while not queue.done:
        while job := queue.take(most_open=6):
            held.append(job)
        assert len(held) <= queue.open <= 6
        job = held.pop(rng.randrange(len(held)))
        if rng.random() < 0.3:
            queue.give_back(job)
        else:
            queue.put(job, list(job[1].numbers))
        out += queue.in_order()
    assert out == [[i] for i in range(40)]


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
    monkeypatch.setattr(ray_workers, "PATIENCE", 0.2)
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


@pytest.mark.usefixtures("ray_is_here")
def test_another_token_over_ray_client_is_one_line(monkeypatch):
    grpc = pytest.importorskip("grpc")
    client = importlib.import_module(ray_workers.CLIENT)
    clock = SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=lambda seconds: None)
    monkeypatch.setattr(client, "time", clock)

    def refuse(request, context):  # in the words of Ray
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "Invalid or missing authentication token")

    method = {"ClusterInfo": grpc.unary_unary_rpc_method_handler(refuse)}
    service = grpc.method_handlers_generic_handler("ray.rpc.RayletDriver", method)
    server = grpc.server(ThreadPoolExecutor(1), handlers=[service])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    workers = RayWorkers(f"ray://127.0.0.1:{port}")
    with pytest.raises(ClusterError, match=r"it wants another token; set RAY_AUTH_MODE"):
        workers._connect()
    server.stop(None)


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
    monkeypatch.setattr(ray_workers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--ray needs Ray: .*pip install -r requirements-ray.txt"):
        check_address("local")


def test_a_worker_without_the_model_or_with_another_names_its_node(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "")
    settings = LanguageModel(model_name="1M", seed=9, length=24).settings()
    where = {"model_name": "1M", "models_dir": str(ROOT / "models"), "seed": 9, "length": 24}
    node = f"^node {socket.gethostname()}: "
    other = settings | {"weights": "0" * 16}
    with pytest.raises(ClusterError, match=rf"{node}.*1M is another model: weights \w+, not 0+$"):
        Worker(where, Ends(), other, 1).load()
    where |= {"model_name": "lost", "models_dir": str(tmp_path)}
    with pytest.raises(ClusterError, match=rf"{node}no model in {tmp_path}/lost; "):
        Worker(where, Ends(), settings, 1).load()


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


@pytest.fixture
def fake_ray(ray_is_here, monkeypatch):
    """A cluster in this process, whose workers have a model without TensorFlow."""
    ray = FakeRay()
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "")
    monkeypatch.setattr(ray_workers, "LanguageModel", FakeModel)
    monkeypatch.setattr(RayWorkers, "_connect", lambda self: setattr(self, "_ray", ray))
    return ray


@pytest.mark.parametrize("seed", range(10))
def test_a_dump_is_the_same_whenever_workers_die(fake_ray, seed, tmp_path):
    fake_ray.__init__(dying=0.1, seed=seed)
    model = FakeModel(model_name="1M", seed=1, length=2, batch_size=2)
    for name, maker in [("with", RayWorkers("auto", 3, 1)), ("without", None)]:
        dump(model, nsamples=41, output=str(tmp_path / name), maker=maker)
    assert fake_ray.living is None
    assert (tmp_path / "with").read_bytes() == (tmp_path / "without").read_bytes()


def test_a_dump_ends_if_all_workers_die(fake_ray, tmp_path):
    fake_ray.__init__(dying=1)
    model = FakeModel(model_name="1M", seed=1, length=2, batch_size=2)
    with pytest.raises(ClusterError, match=r"^8 workers died without a batch: The actor died$"):
        dump(model, nsamples=3, output=str(tmp_path / "out"), maker=RayWorkers("auto", 3, 1))
    assert fake_ray.living is None


@pytest.mark.usefixtures("fake_ray")
def test_the_benchmark_runs(monkeypatch, capsys):
    monkeypatch.setattr(language_model, "LanguageModel", FakeModel)
    monkeypatch.setattr(sys, "argv", ["bench_ray.py", "--smoke"])
    runpy.run_path(str(ROOT / "benchmarks" / "bench_ray.py"), run_name="__main__")
    assert capsys.readouterr().out.count("\n") == 4


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
def terminal():
    """A pseudo-terminal. Yields: its file descriptor, and a function: what was written to it."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    written = bytearray()

    def read():
        with contextlib.suppress(OSError):  # the end
            while data := os.read(ours, 4096):
                written.extend(data)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    yield theirs, lambda: written.decode("utf-8", errors="replace")
    os.close(theirs)
    thread.join(timeout=600)
    os.close(ours)


@contextlib.contextmanager
def running(path, environment, stderr, *flags):
    """A script that writes a dump at `path`, which has begun to grow; in a group of its own."""
    command = [sys.executable, str(UNCONDITIONAL), *FLAGS, "--output", str(path), *flags]
    before = path.stat().st_size if path.exists() else 0
    process = subprocess.Popen(command, env=environment, stderr=stderr, start_new_session=True)
    with process:
        try:
            wait_until(lambda: path.exists() and path.stat().st_size > before + 2000, process)
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def cluster(environment):
    """Two nodes. Yields: their address, and a function that kills the second."""
    helper = [sys.executable, str(ROOT / "tests" / "helpers" / "ray_cluster.py")]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(helper, env=environment, stderr=subprocess.DEVNULL, **options) as process:

        def kill_a_node():
            process.stdin.write("kill a node\n")
            process.stdin.flush()
            assert process.stdout.readline() == "killed\n"

        yield process.stdout.readline().strip(), kill_a_node
        process.stdin.close()


def wait_until(holds, process=None):
    for _ in range(6000):
        if holds():
            return
        assert process is None or process.poll() is None, "it has ended"
        time.sleep(0.1)
    raise TimeoutError


def group_is_gone(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 0)
        return False
    return True


def expected(folder, n_samples):
    """What a dump of one machine without Ray holds."""
    with LanguageModel(model_name="1M", device="cpu", **SAMPLING) as model:
        dump(model, nsamples=n_samples, output=str(folder / "expected"))
    return (folder / "expected").read_bytes()


@contextlib.contextmanager
def another_token_is_refused(environment, address):
    """Meanwhile, a dump with another token ends with one line."""
    environment = environment | {"RAY_AUTH_TOKEN": "cd" * 32}
    command = [sys.executable, str(UNCONDITIONAL), *FLAGS, "--ray", address]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stderr=pipe, text=True) as process:
        yield
        said = process.communicate()[1]
    assert process.returncode == 1
    assert said.count("\n") == 1 and "it wants another token; set RAY_AUTH_MODE" in said


def dump_until_both_die(path, environment, address, kill_a_node):
    """First a node, then the driver. Its terminal shows one bar."""
    flags = ["--ray", address]
    with terminal() as (stderr, said), running(path, environment, stderr, *flags) as driver:
        wait_until(lambda: "workers=2]" in said(), driver)
        kill_a_node()
        wait_until(lambda: "died; another one makes its batches again" in said(), driver)
        size = path.stat().st_size
        wait_until(lambda: path.stat().st_size > size and said().endswith("workers=1]"), driver)
    bar = r"\r[\d.k]+token \[\d\d:\d\d, +[\d.k]+token/s, samples=\d+, workers=2\]"
    assert "\rstarting the workers ..." in said() and re.search(bar, said())
    assert said().count("\n") == 1, "more than the bar and the line about the node"


def dump_until_ctrl_c(path, environment):
    """With a Ray of its own, of which nothing is left."""
    folder = Path(environment["TMPDIR"])
    with (path.parent / "stderr").open("w+") as stderr:
        with running(path, environment, stderr, "--ray", "local") as driver:
            assert len(list(folder.glob("gpt2-ray-*"))) == 1
            os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
            assert driver.wait(timeout=600) == 130
            wait_until(lambda: group_is_gone(driver))
        stderr.seek(0)
        assert re.fullmatch(r"\d+ samples, \d+ tokens in .* tokens/s; seed 9\n", stderr.read())
    assert not list(folder.glob("gpt2-ray-*"))


@pytest.mark.end_to_end
def test_a_dump_survives_whatever_dies_and_goes_on_with_another_ray(ray_environment, tmp_path):
    path, environment = tmp_path / "out", ray_environment | TOKEN
    with (
        cluster(environment) as (address, kill_a_node),
        another_token_is_refused(environment, address),
    ):
        dump_until_both_die(path, environment, address, kill_a_node)
    dump_until_ctrl_c(path, ray_environment)
    made = banners(path.read_text(encoding="utf-8"))

    assert made == [*range(1, len(made) + 1)] and len(made) % 16 == 0
    assert path.read_bytes() == expected(tmp_path, len(made))
