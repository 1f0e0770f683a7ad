"""How TensorFlow is imported and run: quietly, on which processor, and with Ctrl-C in between."""

import contextlib
import gc
import importlib.util
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import engine
from gpt2.typed_value import typed_value
from user_error import UserError, require

_processes: set[int] = set()  # in which a session was opened; a fork inherits its parent's
# Lines that report no error. Without a GPU, the search for one ends in an error of cuInit, and
# TensorFlow 2.19 tries to register CUDA's libraries twice.
CHATTER = re.compile(
    "[IW]0000 |WARNING: All log messages before absl|To enable the following|"
    ".*(failed call to cuInit|Unable to register cu)"
)


def import_tensorflow() -> Any:
    """Import TensorFlow as a TF1-style graph library, without its start-up messages.

    Returns: the module tensorflow.compat.v1. Eager execution stays as it is, for the sake of
    notebooks, so graphs are built under `graph.as_default()`. Errors that TensorFlow logs still
    reach stderr.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    engine.set_environment()
    if "tensorflow" in sys.modules:
        gc.unfreeze()  # or a first model, made before the import, would stay for ever
    with _without_chatter(), without_collections(), _without_keras():
        import tensorflow.compat.v1 as tf

        tf.config.list_physical_devices()  # the search for a GPU logs too
        if tf.__version__ < "2.20":  # a first run logs as well
            config = tf.ConfigProto(device_count={"GPU": 0})
            with tf.Graph().as_default(), tf.Session(config=config) as session:
                session.run(tf.constant(0))
    tf.get_logger().setLevel("ERROR")
    # Differs from TensorFlow's own default: float32 is float32, on every GPU.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return tf


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Let TensorFlow's import leave out Keras, which takes half a second.

    `tf.keras` imports it when it is first used.
    """
    name = "TF_USE_LEGACY_KERAS"
    if name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]  # or `tf.keras` would be an older Keras


@contextlib.contextmanager
def without_collections(stays: bool = True) -> Iterator[None]:
    """Pause garbage collection, then exempt the objects made in the block.

    An import, or a vocabulary, makes objects that live as long as the process. The collector would
    search them again and again, which takes a fifth to a quarter of the time.

    Args: stays, whether the objects live that long. If not, they are not exempt. Nor is what is
      made after TensorFlow's import, because an earlier model may be garbage by then.
    """
    stays = stays and "tensorflow" not in sys.modules
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if stays:
            gc.freeze()
        gc.enable()


def check_device(device: str) -> None:
    """Raise UserError unless `device` is auto, cpu, gpu or gpu:N; needs no TensorFlow."""
    known = re.fullmatch(r"auto|cpu|gpu(:\d{1,4})?", typed_value("device", device, str))
    require("device", device, known is not None, "auto, cpu, gpu or gpu:N, as in gpu:1")


def choose_device(device: str, tf: Any) -> tuple[Any, str]:
    """Find the processor to compute on.

    Args:
      device: "cpu"; "gpu", the first one; "gpu:N"; or "auto", the first GPU if there is one.
      tf: tensorflow.compat.v1
    Returns: a tf.ConfigProto for sessions, and a description of the processor.
    Raises: UserError, with the reason, if TensorFlow does not see such a processor.
    """
    check_device(device)
    gpus = tf.config.list_physical_devices("GPU")
    number = int(device.partition(":")[2] or 0)
    config = tf.ConfigProto(allow_soft_placement=True)
    if not engine.rewrites_graphs():
        config.graph_options.rewrite_options.disable_meta_optimizer = True
    if device == "cpu" or (device == "auto" and not gpus):
        config.device_count["GPU"] = 0
        return config, f"the CPU, {os.cpu_count()} cores"
    require("device", device, number < len(gpus), f"one that TensorFlow sees: {_seen(gpus)}")
    config.gpu_options.allow_growth = True
    config.gpu_options.visible_device_list = str(number)
    details = tf.config.experimental.get_device_details(gpus[number])
    return config, f"GPU {number}, {details.get('device_name', 'unknown')}"


def check_process() -> None:
    """Raise UserError in a process that was forked after its parent had opened a session.

    The child has none of TensorFlow's threads, so nothing that it runs would ever end.
    """
    if _processes and os.getpid() not in _processes:
        raise UserError(
            "this process was forked from one that had used a model, and TensorFlow cannot run in "
            'it; fork before the first use, or start processes with "spawn"'
        )


def open_session(tf: Any, config: Any, growing: Any) -> Any:
    """A tf.Session with a new graph, which one thread may extend while another runs parts of it.

    Before a run, a session takes over the graph's new operations. It must not do this while another
    thread adds some. So what is run meanwhile must be there, or taken over by `extend`.

    Args: growing, a lock to hold while adding to the graph.
    """

    class Session(tf.Session):  # type: ignore[misc]
        def run(self, *args: Any, **kwargs: Any) -> Any:
            with interrupted_afterwards():
                return super().run(*args, **kwargs)

        def extend(self) -> None:
            super()._extend_graph()

        def _extend_graph(self) -> None:  # private; TensorFlow's `run` calls it
            if growing.acquire(blocking=False):
                try:
                    self.extend()
                finally:
                    growing.release()

    _processes.add(os.getpid())
    return Session(graph=tf.Graph(), config=config)


@contextlib.contextmanager
def interrupted_afterwards() -> Iterator[None]:
    """Let Ctrl-C, and a SIGTERM that Python handles, wait for the end of the block.

    TensorFlow's C++ code calls Python, also to read a feed or a tensor and to add to a graph. It
    does not expect an exception of a signal handler there: it drops it, or the process crashes.
    """
    handlers: dict[signal.Signals, Callable[..., Any]] = {}
    if threading.current_thread() is threading.main_thread():  # only this one is interrupted
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(handler := signal.getsignal(number)):
                handlers[number] = handler
    arrived: list[tuple[Any, ...]] = []
    for number in handlers:
        signal.signal(number, lambda *arguments: arrived.append(arguments))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if arrived:
            handlers[arrived[0][0]](*arrived[0])


def _seen(gpus: list[Any]) -> str:
    """The processors that TensorFlow can use, and how to make it use a GPU."""
    if gpus:
        return f"cpu, gpu:0 to gpu:{len(gpus) - 1}"
    with contextlib.suppress(ModuleNotFoundError):
        # Without this one, which TensorFlow 2.21 does not look for in its wheel, no GPU is used.
        wheel = importlib.util.find_spec("nvidia.cusolver")
        for folder in (wheel and wheel.submodule_search_locations) or ():
            return (
                "only cpu, though CUDA's libraries are installed; check NVIDIA's driver, and let "
                f'TensorFlow find the libraries: export LD_LIBRARY_PATH="{Path(folder, "lib")}"'
            )
    return (
        "only cpu; a GPU needs NVIDIA's driver and CUDA's libraries: "
        'pip install "tensorflow[and-cuda]"'
    )


@contextlib.contextmanager
def held_stderr() -> Iterator[list[str]]:
    """Capture stderr, including native code's. Yields: a list, with its lines at the end."""
    lines: list[str] = []
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield lines
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            lines += held.read().decode("utf-8", errors="replace").splitlines()


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Hold stderr back, and print only the errors at the end."""
    # No setting of TensorFlow's silences what it logs before its logger is set up.
    lines: list[str] = []
    try:
        with held_stderr() as lines:
            yield
    finally:
        sys.stderr.writelines(f"{line}\n" for line in lines if not CHATTER.match(line))
