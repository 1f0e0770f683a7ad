"""Make the batches of a dump on a Ray cluster.

Ray starts the processes, gives each batch to one that is free, and makes it again elsewhere if a
process or a node dies. The batches are tasks and not calls of actors: a call waits for its actor to
come back, so the batch of a dead node would wait for a new node. Ray is imported only when needed.
"""

import functools
import itertools
import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from gpt2.language_model import LanguageModel
from gpt2.sampling.batch import SampleBatch, Show, StopConditions, make_samples
from gpt2.sampling.ray_address import ClusterError, check_address
from gpt2.sampling.sample_file import Sample
from gpt2.tensorflow_session import held_stderr
from user_error import UserError, require

TASK_RETRIES = 5  # of a batch whose process or node died, before the dump ends
WAITING = 4  # finished batches for each worker that may wait for an earlier one
NOTICE_SECONDS = 20  # after which a line reports that no worker is ready yet
ENVIRONMENT = {  # unless they are set
    "RAY_USAGE_STATS_ENABLED": "0",  # statistics would be sent to Ray's makers
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray's logs would be on stderr
    "RAY_NUM_REDIS_GET_RETRIES": "5",  # seconds to try with a wrong token
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "1",  # with ray://, the wait after the first try
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "2",  # and after the second and the third, the last
    "RAY_task_oom_retries": str(TASK_RETRIES),  # there would be no limit
    # For `local`:
    "RAY_worker_niceness": "0",  # it would be 15: all other processes come first
    "RAY_prestart_worker_first_driver": "0",  # a process would start for each core, for nothing
}
SENT_VARIABLES = "GPT2_ENGINE", "TF_ENABLE_ONEDNN_OPTS"  # bear on the last digit; see engine.py
# Removes a folder when standard input ends, also because the dump was killed. Ray's processes may
# still write there for a while.
REMOVE_FOLDER = """import shutil, sys, time
sys.stdin.read()
while not shutil.rmtree(sys.argv[1], ignore_errors=True) and time.process_time() < 1: pass
"""
log = logging.getLogger("gpt2")


class Job(NamedTuple):
    """What a worker needs to make samples as the driver would; the dicts as tuples of pairs."""

    options: tuple[tuple[str, Any], ...]  # for LanguageModel
    stop_conditions: StopConditions
    settings: tuple[tuple[str, Any], ...]  # as the driver knows them; the worker's must be equal
    cores: int


@functools.lru_cache(maxsize=1)
def load_model(job: Job, gpus: str | None) -> LanguageModel:
    """Load the model of this process once. Raises: UserError, also if it is another model."""
    if load_model.cache_info().currsize:
        os._exit(1)  # TensorFlow keeps its GPUs, and Ray has given others; Ray starts a new process
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(job.cores)  # TensorFlow would take all
    model, expected = LanguageModel(**dict(job.options)), dict(job.settings)
    for name, value in model.settings().items():
        if value != expected[name]:
            difference = f"{name} {value}, not {expected[name]}"
            raise UserError(f"{model.folder} is another model: {difference}")
    model.prepare()
    return model


def make_on_worker(job: Job, batch: SampleBatch | None) -> list[Sample]:
    """Make a batch in a process of the cluster; None only loads the model. Raises: ClusterError."""
    try:
        model = load_model(job, os.environ.get("CUDA_VISIBLE_DEVICES"))
        return make_samples(model, batch, job.stop_conditions, lambda _: None) if batch else []
    except (UserError, OSError) as error:
        raise ClusterError(f"node {socket.gethostname()}: {error}") from None


class RayWorkers:
    """Makes batches on a Ray cluster.

    Args:
      address: "local" starts Ray on this machine, and ends it with the dump; "auto" joins the
        cluster of RAY_ADDRESS or else of this machine; HOST:PORT or ray://HOST:PORT joins another.
      workers: how many batches may be made at a time; None means as many as there is room for.
      cpus_per_worker: cores of each. None gives them all cores of this machine to share, or in a
        cluster, those of the smallest node to each; with a GPU, one.
      gpus_per_worker: may be a fraction. None means 1 if there are GPUs and the device may be one.
    Raises: UserError, as all methods do, if one of these is wrong, or the cluster does not answer.
    """

    def __init__(
        self,
        address: str,
        workers: int | None = None,
        cpus_per_worker: int | None = None,
        gpus_per_worker: float | None = None,
    ):
        counts = {"workers": workers, "cpus_per_worker": cpus_per_worker}
        for name, value in {**counts, "gpus_per_worker": gpus_per_worker}.items():
            least = 1 if name in counts else 0
            require(name, value, value is None or least <= value < 1 << 20, f"at least {least}")
        self.address, self._n_workers = address, workers
        self._cpus, self._gpus = cpus_per_worker, gpus_per_worker
        self._ray: Any = None
        self._remover: subprocess.Popen[bytes] | None = None
        check_address(address)

    def start(self, sampler: LanguageModel, ends: StopConditions, watched: bool = False) -> None:
        """Connect, and wait until one worker has the model."""
        require("device", sampler.device, ":" not in sampler.device, "auto, cpu or gpu with --ray")
        with tqdm(bar_format="starting the workers ...", leave=False, disable=None):
            self._connect()
            self._settle_shares(sampler.device)
            options = {
                "model_name": sampler.folder.name,
                "models_dir": str(sampler.folder.resolve().parent),
                "seed": sampler.seed,
                "batch_size": sampler.batch_size,
                "device": "gpu" if self._gpus else "cpu",
                "dtype": sampler.dtype,
                **vars(sampler.sampling),
            }
            settings = tuple(sampler.settings().items())
            self._job = Job(tuple(options.items()), ends, settings, self._cpus or 1)
            share = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_retries": TASK_RETRIES}
            self._task = self._ray.remote(make_on_worker).options(**share)
            first = self._task.remote(self._job, None)
            for second in itertools.count():
                if self._ray.wait([first], timeout=1)[0]:
                    break
                if second == NOTICE_SECONDS:
                    needed = f"{self._cpus} CPUs" + f" and {self._gpus:g} GPUs" * bool(self._gpus)
                    with tqdm.external_write_mode():
                        log.warning(
                            f"still waiting for a node with {needed} free, or for the model"
                        )
                self._nodes()
            self._result(first)

    def make(
        self,
        wanted: Iterable[SampleBatch],
        on_tokens: Callable[[int], object],
        show: Show | None = None,
    ) -> Iterator[list[Sample]]:
        """The samples of each batch, in this order; nothing is shown of an incomplete batch."""
        batches, results = iter(wanted), deque[Any]()  # in order; Ray keeps what is finished
        while True:
            ready, running = [], []
            if results:
                ready, running = self._ray.wait([*results], num_returns=len(results), timeout=0)
            most = self._n_workers or 2 * self._room()  # each worker finds its next batch at once
            n_more = min(most - len(running), WAITING * most - len(results))
            for batch in itertools.islice(batches, max(0, n_more)):
                running.append(self._task.remote(self._job, batch))
                results.append(running[-1])
            if not results:
                return
            if results[0] in ready:
                samples = self._result(results.popleft())
                on_tokens(sum(len(sample.tokens) for sample in samples))
                yield samples
            else:
                self._ray.wait(running, timeout=1)

    def close(self) -> None:
        """End the workers and, if it was started here, Ray."""
        if self._ray is not None:
            self._ray.shutdown()
        if self._remover is not None:
            self._remover.communicate()

    def _result(self, reference: Any) -> Any:
        """What a task returned. Raises: its error, or ClusterError if Ray could not run it."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise ClusterError(f"--ray {self.address}: {_reason(error)}") from None

    def _connect(self) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        options, held = self._init_options(), list[str]()
        try:
            with held_stderr() as held, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import ray

                self._ray = ray
                ray.init(self.address, **options)
        except Exception as error:  # of many kinds, with several lines
            hint = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            if "token" in f"{held} {error}":
                reason = f"it wants another token; {hint}"
            elif self.address.startswith("ray://"):  # its errors do not have the reason
                reason = f"{_reason(error)}; if it wants a token, {hint}"
            elif self.address == "auto" and isinstance(error, ConnectionError):
                reason = "no Ray answers on this machine"
            else:
                reason = _reason(error)
            raise ClusterError(f"--ray {self.address}: {reason}") from None

    def _init_options(self) -> dict[str, Any]:
        """Arguments of ray.init: the code is sent to the workers, so that all run the same."""
        variables = {name: os.environ[name] for name in SENT_VARIABLES if name in os.environ}
        code = {"working_dir": str(Path(__file__).parents[2]), "excludes": ["__pycache__"]}
        options: dict[str, Any] = {"runtime_env": {**code, "env_vars": variables}}
        options |= {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if self.address == "local":
            # Without a token, Ray would run whatever another user of the machine sends it, and its
            # own token would be a file in the home.
            if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
                os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            self._n_workers = self._n_workers or 1
            self._cpus = self._cpus or max(1, _cores() // self._n_workers)
            # The path of a socket has at most some hundred bytes.
            long = len(tempfile.gettempdir()) > 30 and Path("/tmp").is_dir()
            folder = tempfile.mkdtemp(prefix="gpt2-ray-", dir="/tmp" if long else None)
            command = [sys.executable, "-c", REMOVE_FOLDER, folder]
            self._remover = subprocess.Popen(
                command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
            )
            options |= {"num_cpus": self._n_workers * self._cpus, "include_dashboard": False}
            options["_temp_dir"] = variables["TMPDIR"] = folder  # a killed worker leaves files, too
        return options

    def _settle_shares(self, device: str) -> None:
        """Decide how many cores and GPUs a worker has, where no flag does."""
        nodes = self._nodes()
        if self._gpus is None:
            self._gpus = float(device != "cpu" and any(node.get("GPU") for node in nodes))
        if self._cpus is None:
            cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
            self._cpus = 1 if self._gpus else min(cores, default=1)
        if self._gpus and device == "cpu":
            raise UserError(f"gpus_per_worker must be 0 with --device cpu, got {self._gpus:g}")

    def _nodes(self) -> list[dict[str, float]]:
        """The resources of each node that lives. Raises: ClusterError if there is none."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not nodes:
            raise ClusterError(f"--ray {self.address}: no node of the cluster is alive")
        return nodes

    def _room(self) -> int:
        """How many workers the nodes have room for, busy or not; at least one."""
        share = {"CPU": self._cpus or 1, **({"GPU": self._gpus} if self._gpus else {})}
        fits = (min(node.get(name, 0) // n for name, n in share.items()) for node in self._nodes())
        return max(1, int(sum(fits)))


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _reason(error: BaseException) -> str:
    """The line of an error of Ray's that says most."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)])[-1]
