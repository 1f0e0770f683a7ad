"""The workers of a Ray cluster make the batches of a dump.

Ray starts the workers, hands them their batches, and notices which have died. Added here is what a
dump needs: its batches come back in order, and only a few are open at a time; those of a dead
worker are made again by another. Ray is imported only when a dump begins.
"""

import contextlib
import heapq
import importlib.util
import logging
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gpt2.language_model import LanguageModel
from gpt2.sampling.batch import Batch, Ends, Show, make_samples
from gpt2.sampling.sample_file import Sample
from gpt2.tensorflow_session import held_stderr
from user_error import UserError, require

SOURCE = Path(__file__).resolve().parents[2]
PATIENCE = 5  # seconds to wait for an answer from the address of a cluster
SETTINGS = b"\x04"  # the frame that both sides of a connection begin with in HTTP/2
AHEAD = 2  # batches that a worker has at a time: one to make, and one to go on with
WAITING = 2  # finished batches, for each worker, that may wait for an earlier one
ENVIRONMENT = {  # unless they are set
    "RAY_USAGE_STATS_ENABLED": "0",  # it would tell its makers
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # it would log on stderr
    "RAY_NUM_REDIS_GET_RETRIES": "5",  # seconds to try with a wrong token
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "1",  # with ray://, the wait after the first try
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "2",  # and after the second and the third, the last
    # For `local`:
    "RAY_worker_niceness": "0",  # it would be 15: all other processes come first
    "RAY_prestart_worker_first_driver": "0",  # it would start a process for each core, for nothing
}
CLIENT = "ray.util.client.worker"  # this logger says why ray:// was refused; the error does not
CHOICES = "GPT2_ENGINE", "TF_ENABLE_ONEDNN_OPTS"  # they bear on the last digit; see engine.py
SECONDS_TO_PLACE = 20  # after which it is said that no worker has a place yet
log = logging.getLogger("gpt2")


class ClusterError(UserError):
    """The cluster is at fault, and not what the user typed."""

    exit_status = 1


class Worker:
    """A process of the cluster: it loads the model once, then makes batches.

    Args:
      options: for LanguageModel.
      ends: what ends a sample early.
      settings: of the model as the dump knows it; the worker's must be the same.
      cores: how many it may use.
    """

    def __init__(self, options: dict[str, Any], ends: Ends, settings: dict[str, Any], cores: int):
        self._options, self._ends, self._settings = options, ends, settings
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(cores)  # TensorFlow would take all

    def load(self) -> str:
        """Load the model, and tell the name of the node. Raises: UserError, which has it, too."""
        node = socket.gethostname()
        try:
            self._sampler = LanguageModel(**self._options)
            for name, value in self._sampler.settings().items():
                if value != self._settings[name]:
                    here, there = self._settings[name], value
                    folder = self._sampler.folder
                    raise UserError(f"{folder} is another model: {name} {there}, not {here}")
            self._sampler.prepare()
        except UserError as error:
            raise ClusterError(f"node {node}: {error}") from None
        return node

    def make(self, batch: Batch) -> list[Sample]:
        """The samples of a batch."""
        try:
            return make_samples(self._sampler, batch, self._ends, lambda _: None)
        except UserError as error:
            raise ClusterError(f"node {socket.gethostname()}: {error}") from None


class Queue:
    """Batches on their way: out in order to whoever makes them, and back in order as samples.

    Attributes:
      open: how many were taken and are not back in order yet.
      done: whether all are back.
    """

    def __init__(self, wanted: Iterable[Batch]):
        self._wanted = enumerate(wanted)
        self._again: list[tuple[int, Batch]] = []  # a heap: their worker has died
        self._made: dict[int, list[Sample]] = {}
        self._turn = 0
        self._at_end = False
        self.open = 0

    @property
    def done(self) -> bool:
        return self._at_end and not self.open

    def take(self, most_open: int) -> tuple[int, Batch] | None:
        """The first batch that nobody makes; None if there is none, or too many are open."""
        if self._again:
            return heapq.heappop(self._again)
        if self.open >= most_open:
            return None
        job = next(self._wanted, None)
        self._at_end = job is None
        self.open += not self._at_end
        return job

    def give_back(self, job: tuple[int, Batch]) -> None:
        """Say that a batch that was taken will not be made."""
        heapq.heappush(self._again, job)

    def put(self, job: tuple[int, Batch], samples: list[Sample]) -> None:
        """Bring the samples of a batch."""
        self._made[job[0]] = samples

    def in_order(self) -> Iterator[list[Sample]]:
        """The samples of the batches whose turn has come."""
        while self._turn in self._made:
            self.open -= 1
            self._turn += 1
            yield self._made.pop(self._turn - 1)


@dataclass(eq=False)
class Member:
    """A worker, as the dump sees it."""

    actor: Any
    calls: dict[Any, tuple[int, Batch] | None]  # by what Ray calls each; the first loads the model
    node: str = ""  # empty until the model is loaded
    began: float = field(default_factory=time.monotonic)


class RayWorkers:
    """Makes batches on a Ray cluster.

    Args:
      address: "local" starts Ray on this machine, and ends it with the dump; "auto" joins the
        cluster that this machine belongs to; HOST:PORT or ray://HOST:PORT joins another.
      workers: how many; None means as many as there is room for, also when nodes come and go.
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
        for name, value, least in [
            ("workers", workers, 1),
            ("cpus_per_worker", cpus_per_worker, 1),
            ("gpus_per_worker", gpus_per_worker, 0),
        ]:
            holds = value is None or least <= value < 1 << 20
            require(name, value, holds, f"at least {least}")
        self.address, self._n_wanted = address, workers
        self._cpus, self._gpus = cpus_per_worker, gpus_per_worker
        self._members: list[Member] = []
        self._n_died = 0  # since a batch was last made
        self._said_no_place = False
        self._folder: str | None = None
        self._ray: Any = None
        check_address(address)

    # A maker of batches, as dump.Maker

    def start(self, sampler: LanguageModel, ends: Ends, watched: bool = False) -> None:
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
            self._arguments = options, ends, sampler.settings(), self._cpus
            while not self.status()["workers"]:
                self._hire()
                self._collect(Queue([]))

    def make(
        self,
        wanted: Iterable[Batch],
        on_tokens: Callable[[int], object],
        show: Show | None = None,
    ) -> Iterator[list[Sample]]:
        """The samples of each batch, in this order; on_tokens as in batch.make_samples.

        Nothing is shown of a sample before its batch is complete.
        """
        queue = Queue(wanted)
        while not queue.done:
            self._hire()
            self._hand_out(queue)
            self._collect(queue)
            for samples in queue.in_order():
                on_tokens(sum(len(sample.tokens) for sample in samples))
                yield samples

    def status(self) -> dict[str, Any]:
        """How many workers live and have the model."""
        return {"workers": sum(bool(member.node) for member in self._members)}

    def close(self) -> None:
        """End the workers and, if it was started here, Ray."""
        if self._ray is not None:
            for member in self._members:
                self._end(member)
            self._ray.shutdown()
        self._members.clear()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    # The cluster

    def _connect(self) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if self.address == "local":
            _use_token_of_our_own()
        options = self._options()
        logged: list[str] = []
        said: list[str] = []
        try:
            with _heard(CLIENT) as logged, held_stderr() as said, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import ray

                self._ray = ray
                ray.init(self.address, **options)
        except Exception as error:  # of many kinds, with several lines
            if any("token" in line for line in [*said, *logged, str(error)]):
                reason = "it wants another token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            elif self.address == "auto" and isinstance(error, ConnectionError):
                reason = "no Ray runs on this machine"
            else:
                reason = _reason(error)
            raise ClusterError(f"--ray {self.address}: {reason}") from None

    def _options(self) -> dict[str, Any]:
        """What ray.init is called with, besides the address."""
        # The code travels to the workers, so that all have the same, and so do these choices.
        passed_on = {name: os.environ[name] for name in CHOICES if name in os.environ}
        code = {"working_dir": str(SOURCE), "excludes": ["__pycache__"]}
        options: dict[str, Any] = {
            "runtime_env": {**code, "env_vars": passed_on},
            "log_to_driver": False,
            "logging_level": logging.CRITICAL,
        }
        if self.address == "local":
            self._n_wanted = self._n_wanted or 1
            self._cpus = self._cpus or max(1, _cores() // self._n_wanted)
            self._folder = tempfile.mkdtemp(prefix="gpt2-ray-", dir=_short_folder())
            options |= {"num_cpus": self._n_wanted * self._cpus, "include_dashboard": False}
            options["_temp_dir"] = self._folder
            passed_on["TMPDIR"] = self._folder  # where a kill leaves files
        return options

    def _settle_shares(self, device: str) -> None:
        """Decide how many cores and GPUs a worker has, where no flag says it."""
        nodes = self._nodes()
        if self._gpus is None:
            self._gpus = float(device != "cpu" and any(node.get("GPU") for node in nodes))
        if self._cpus is None:
            cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
            self._cpus = 1 if self._gpus else min(cores, default=1)
        if self._gpus and device == "cpu":
            raise UserError(f"gpus_per_worker must be 0 with --device cpu, got {self._gpus:g}")

    def _nodes(self) -> list[dict[str, float]]:
        """The resources of each node that lives."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _room(self) -> int:
        """For how many workers the nodes have room, busy or not; at least one."""
        cpus, gpus = self._cpus or 1, self._gpus or 0
        places = 0
        for node in self._nodes():
            n_places = node.get("CPU", 0) // cpus
            places += int(min(n_places, node.get("GPU", 0) // gpus) if gpus else n_places)
        return max(1, places)

    # The workers

    def _hire(self) -> None:
        """Ask for workers in the place of those that died, and on nodes that are new."""
        n_wanted = self._n_wanted or self._room()
        while len(self._members) < n_wanted:
            remote = self._ray.remote(Worker)
            share = {"num_cpus": self._cpus, "num_gpus": self._gpus}
            actor = remote.options(max_restarts=0, **share).remote(*self._arguments)
            self._members.append(Member(actor, {actor.load.remote(): None}))
        if not self._said_no_place and not self.status()["workers"]:
            waited = time.monotonic() - max(member.began for member in self._members)
            if waited > SECONDS_TO_PLACE:
                self._said_no_place = True
                self._warn(f"still waiting for a node with {self._share()} free, or for the model")

    def _share(self) -> str:
        return f"{self._cpus} CPUs" + (f" and {self._gpus:g} GPUs" if self._gpus else "")

    def _hand_out(self, queue: Queue) -> None:
        """Give each worker that has the model the batches that it lacks, first one to each."""
        ready = [member for member in self._members if member.node]
        most_open = max(1, len(ready)) * (AHEAD + WAITING)
        for n in range(1, AHEAD + 1):
            for member in ready:
                if len(member.calls) < n and (job := queue.take(most_open)):
                    member.calls[member.actor.make.remote(job[1])] = job

    def _collect(self, queue: Queue) -> None:
        """Wait until something is done, but no longer than a second."""
        owners = {call: member for member in self._members for call in member.calls}
        if not owners:
            return
        done, _ = self._ray.wait([*owners], timeout=1)
        for call in done:
            member = owners[call]
            try:
                value = self._ray.get(call)
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError) as e:
                self._bury(member, queue, e)
                continue
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None
            job = member.calls.pop(call)
            if job is None:
                member.node = value
            else:
                queue.put(job, value)
                self._n_died = 0

    def _bury(self, member: Member, queue: Queue, error: Exception) -> None:
        """Give the batches of a worker that died to others."""
        self._end(member)
        self._members.remove(member)
        for job in filter(None, member.calls.values()):
            queue.give_back(job)
        self._n_died += 1
        if self._n_died > 2 * len(self._members) + 3:
            raise ClusterError(f"{self._n_died} workers died without a batch: {_reason(error)}")
        node = f"on node {member.node} " if member.node else ""
        self._warn(f"a worker {node}died; another one makes its batches again")

    def _end(self, member: Member) -> None:
        with contextlib.suppress(Exception):  # it may be dead, or the cluster gone
            self._ray.kill(member.actor)

    def _warn(self, line: str) -> None:
        with tqdm.external_write_mode():
            log.warning(line)


def check_address(address: str) -> None:
    """Raise UserError unless Ray is here, and somebody listens at the address; imports no Ray."""
    found = re.fullmatch(r"(?:ray://)?(\[[^\]\s]+\]|[^:/\s]+):(\d{1,5})", address)
    known = address in ("local", "auto") or (found is not None and int(found[2]) < 1 << 16)
    require("ray", repr(address), known, "local, auto, HOST:PORT or ray://HOST:PORT")
    if importlib.util.find_spec("ray") is None:
        raise UserError("--ray needs Ray: python3 -m pip install -r requirements-ray.txt")
    if found:
        try:
            answer = _greet(found[1].strip("[]"), int(found[2]))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ClusterError(f"--ray {address}: no answer: {reason}") from None
        if answer != SETTINGS and not os.environ.get("RAY_USE_TLS"):
            raise ClusterError(f"--ray {address}: what answers there is not Ray")


def _greet(host: str, port: int) -> bytes:
    """What kind of frame a server of HTTP/2, as Ray's are, answers first. Raises: OSError.

    Ray itself would try again and again for minutes.
    """
    with socket.create_connection((host, port), timeout=PATIENCE) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + SETTINGS + bytes(5))
        connection.settimeout(PATIENCE)
        return connection.recv(4, socket.MSG_WAITALL)[3:]


def _use_token_of_our_own() -> None:
    """Let nobody else into a Ray that is started here. Ray itself would write a token to the home.

    A Ray without a token would run whatever another user of the machine sends it.
    """
    if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _heard(name: str) -> Iterator[list[str]]:
    """Listen to a logger; nobody else hears it meanwhile. Yields: its messages of all levels."""
    messages: list[str] = []

    def hear(record: logging.LogRecord) -> bool:
        messages.append(record.getMessage())
        return False

    logger = logging.getLogger(name)
    level = logger.level
    logger.addFilter(hear)
    logger.setLevel(logging.DEBUG)
    try:
        yield messages
    finally:
        logger.setLevel(level)
        logger.removeFilter(hear)


def _short_folder() -> str | None:
    """Where sockets can lie, as their path has at most some hundred bytes; None for the default."""
    return "/tmp" if len(tempfile.gettempdir()) > 30 and Path("/tmp").is_dir() else None


def _reason(error: BaseException) -> str:
    """The line of an error of Ray's that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
