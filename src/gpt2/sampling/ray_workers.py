"""Make the batches of a dump on a Ray cluster.

Ray starts the workers, queues the batches, and repeats a batch elsewhere if its process or its node
dies. Batches are tasks with `max_retries`, not calls of the actors in an ActorPool: an actor of a
dead node waits for a new node, and the next sample of the file would wait with it.
"""

import contextlib
import functools
import importlib.util
import json
import logging
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from gpt2.language_model import LanguageModel
from gpt2.sampling.batch import SampleBatch, StopConditions, make_samples
from gpt2.sampling.sample_file import Sample
from gpt2.tensorflow_session import held_stderr
from gpt2.terminal import status_line
from user_error import ClusterError, UserError, require

RETRIES = 5  # of a batch whose process or node died
WAITING = 4  # finished batches for each worker that may wait for an earlier one
SENT_VARIABLES = "GPT2_ENGINE", "TF_ENABLE_ONEDNN_OPTS"  # can change the last digit; see engine.py
ENVIRONMENT = {  # of Ray, unless the user has set them
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # no log on stderr
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # no report of a dead node among the samples on stdout
    "RAY_task_oom_retries": str(RETRIES),  # no limit by default
    # Where no cluster answers, these give up in 5 to 10 s; by default, in minutes.
    "RAY_gcs_rpc_server_connect_timeout_s": "2",
    "RAY_py_gcs_connect_timeout_s": "5",
    "RAY_NUM_REDIS_GET_RETRIES": "1",
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "2",  # with ray://, of three attempts
    "RAY_worker_niceness": "0",  # of `local`; by default 15: all other processes come first
    "RAY_prestart_worker_first_driver": "0",  # by default `local` starts one for each core
}
# Without a line at the end, this process was killed, which Ray does, too, if its cluster is gone.
AT_END = """read line || { echo "$0: killed, or the cluster is gone" >&2; exec >&- 2>&-; sleep 5; }
rm -rf "$1"
"""
log = logging.getLogger("gpt2")


@functools.lru_cache(maxsize=1)
def load_model(job: str, gpus: str | None) -> LanguageModel:
    """Load the model of this process once. Raises: UserError, also if it is another model."""
    if load_model.cache_info().currsize:
        os._exit(1)  # TensorFlow keeps its GPUs, but Ray assigned others; Ray starts a new process
    options, fingerprint, n_cores = json.loads(job)
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(n_cores)  # all cores by default
    lm = LanguageModel(**options)
    if (found := lm.session.fingerprint()) != fingerprint:
        raise UserError(f"{lm.folder} is another model: fingerprint {found}, not {fingerprint}")
    lm.prepare()
    return lm


def make_on_worker(job: str, ends: StopConditions, batch: SampleBatch | None) -> list[Sample]:
    """Make a batch in a process of the cluster, or only load the model. Raises: ClusterError."""
    try:
        lm = load_model(job, os.environ.get("CUDA_VISIBLE_DEVICES"))
        *_, samples = make_samples(lm, batch, ends) if batch else [[]]
        return samples
    except (UserError, OSError) as error:
        raise ClusterError(f"node {socket.gethostname()}: {error}") from None


class RayWorkers:
    """Makes batches on a Ray cluster.

    Args:
      address: "local" starts Ray on this machine, and ends it with the dump; "auto" joins the
        cluster of RAY_ADDRESS or else of this machine; HOST:PORT or ray://HOST:PORT joins another.
      workers: how many batches are made at a time; by default, as many as there is room for.
      cpus, gpus: of each worker. By default a GPU if there are any, with one core; otherwise the
        cores of the smallest node, or a local worker's share of this machine.
    Raises: UserError if Ray is not installed; the methods raise ClusterError if Ray fails.
    """

    def __init__(self, address: str, workers: int | None, cpus: int | None, gpus: float | None):
        if importlib.util.find_spec("ray") is None:
            raise UserError("--ray needs Ray: python3 -m pip install -r requirements-ray.txt")
        origin = "RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") else "the last `ray start` here"
        self._name = f"--ray {address}" + f" ({origin})" * (address == "auto")
        self._address, self._workers, self._cpus, self._gpus = address, workers, cpus, gpus
        self._closing = contextlib.ExitStack()

    def start(self, lm: LanguageModel, ends: StopConditions, watched: bool = False) -> None:
        """Connect, and wait until one worker has the model."""
        require("device", lm.device, ":" not in lm.device, "auto, cpu or gpu with --ray")
        legal = lm.device != "cpu" or not self._gpus
        require("gpus_per_worker", self._gpus, legal, "0 with --device cpu")
        with self._errors_in_one_line():
            with status_line("connecting to Ray ..."):
                self._connect()
            self._settle_shares(lm.device)
            folder, device = str(lm.folder.absolute()), "gpu" if self._gpus else "cpu"
            options = {"model_name": folder, "device": device, "batch_size": lm.batch_size}
            options |= {"seed": lm.seed, "dtype": lm.dtype, **vars(lm.sampling)}
            job = json.dumps([options, lm.session.fingerprint(), self._cpus])
            share = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_retries": RETRIES}
            task = self._ray.remote(make_on_worker).options(**share)
            self._submit = functools.partial(task.remote, job, ends)
            if not self._room():
                needed = f"{self._cpus} CPUs" + f" and {self._gpus:g} GPUs" * bool(self._gpus)
                log.warning("waiting for a node with %s", needed)
            with status_line("starting a worker ..."):
                list(self.make([None]))

    def make(self, wanted: Iterable[SampleBatch | None]) -> Iterator[list[list[Sample]]]:
        """For each batch, in this order, a list of one element: its complete samples."""
        batches, running = iter(wanted), list[Any]()
        results: list[Any] = []  # as Ray's references, in order
        with self._errors_in_one_line():
            while True:
                most = self._workers or max(1, 2 * self._room())  # the next batches are queued
                n_more = min(most - len(running), WAITING * most - len(results))
                more = [self._submit(batch) for batch in islice(batches, max(0, n_more))]
                results += more
                running += more
                if not results:
                    return
                if results[0] in running:
                    running = self._wait(running)
                else:
                    yield [self._ray.get(results.pop(0))]

    def close(self) -> None:
        """End the workers and, if it was started here, Ray."""
        self._closing.close()

    @contextlib.contextmanager
    def _errors_in_one_line(self) -> Iterator[None]:
        """Raise a task's own error as it is, and Ray's errors as ClusterError."""
        try:
            yield
        except Exception as error:  # Ray raises many kinds, with several lines
            own = getattr(error, "cause", error)  # what a task raised
            if own is not error or isinstance(error, UserError):
                raise own from None
            lines = [line.partition(". ")[0] for line in str(error).strip().splitlines()]
            reason = "; ".join(dict.fromkeys([lines[0], lines[-1].strip()])) if lines else error
            raise ClusterError(f"{self._name}: {reason}") from error

    def _connect(self) -> None:
        variables = {name: os.environ[name] for name in SENT_VARIABLES if name in os.environ}
        code = {"working_dir": str(Path(__file__).parents[2]), "env_vars": variables}
        options = {"runtime_env": code, "log_to_driver": False, "logging_level": logging.CRITICAL}
        if self._address == "local":
            options |= self._local_options()
        folder = str(options.get("_temp_dir", ""))  # Ray's processes write there for some seconds
        at_end = Popen(["sh", "-c", AT_END, self._name, folder], stdin=PIPE, start_new_session=True)
        self._closing.callback(at_end.communicate, b"\n")
        os.environ.update(ENVIRONMENT | os.environ)
        try:
            with held_stderr() as held:
                self._ray: Any = importlib.import_module("ray")
                self._closing.callback(self._ray.shutdown)
                self._ray.init(self._address, **options)
        except Exception as error:
            if "Token" in f"{held}" or self._address.startswith("ray://"):  # it has no reason
                hint = "if it wants another token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
                raise ConnectionError(f"{error}; {hint}") from error
            raise

    def _local_options(self) -> dict[str, Any]:
        """Arguments of ray.init to start Ray here, in a folder that goes with the dump."""
        # Without a token, Ray would run what any user of this machine sends, and Ray's own token
        # would be a file in the home directory.
        if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
            os.environ["RAY_AUTH_TOKEN"] = os.urandom(32).hex()
        cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
        self._workers = self._workers or 1
        self._cpus = self._cpus or max(1, len(cores) // self._workers)
        # TMPDIR may be too long for the path of a socket.
        folder = tempfile.mkdtemp(prefix="gpt2-ray-", dir=os.environ.get("RAY_TMPDIR", "/tmp"))
        share = {"num_cpus": self._workers * self._cpus}
        return {**share, "include_dashboard": False, "_temp_dir": folder}

    def _settle_shares(self, device: str) -> None:
        """Decide how many cores and GPUs a worker has, where no flag does."""
        nodes = self._nodes()
        if self._gpus is None:
            self._gpus = float(device != "cpu" and any(node.get("GPU") for node in nodes))
        cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
        self._cpus = self._cpus or (1 if self._gpus else min(cores, default=1))

    def _nodes(self) -> list[dict[str, float]]:
        """The resources of each living node. Raises: ClusterError if there is none."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not nodes:
            raise ClusterError(f"{self._name}: no node of the cluster is alive")
        return nodes

    def _room(self) -> int:
        """How many workers the nodes have room for, busy or not."""
        name, share = ("GPU", self._gpus) if self._gpus else ("CPU", self._cpus or 1)
        return int(sum(node.get(name, 0) // share for node in self._nodes()))

    def _wait(self, running: list[Any]) -> list[Any]:
        """Wait until a result is ready. Returns: the results that are not."""
        while not self._ray.wait(running, timeout=1)[0]:
            self._nodes()  # of which none may be left
        return self._ray.wait(running, num_returns=len(running), timeout=0)[1]
