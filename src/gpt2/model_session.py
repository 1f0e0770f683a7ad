"""A model in TensorFlow: its graph, its session, its weights, and the locks around them."""

import contextlib
import logging
import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import engine
from gpt2 import background, checkpoint
from gpt2.memory import memory_bytes
from gpt2.model_folder import ModelFolder, choose_model
from gpt2.tensorflow_session import (
    check_device,
    check_process,
    choose_device,
    import_tensorflow,
    interrupted_afterwards,
    open_session,
    without_collections,
)
from gpt2.terminal import status_line
from gpt2.typed_value import typed_value
from user_error import DamagedModelError, UserError, require

if TYPE_CHECKING:
    from encoder import Encoder

DTYPES = "float32", "tf32", "bfloat16"
SLOW_BFLOAT16 = (
    "bfloat16 is slower than float32 here: it needs a processor with avx512_bf16 or amx_bf16, and "
    "oneDNN, which GPT2_ENGINE or TF_ENABLE_ONEDNN_OPTS can turn off"
)
T = TypeVar("T")
log = logging.getLogger("gpt2")


class ModelSession:
    """Builds and runs parts of a model's graph. The weights are read when they are first needed.

    All graphs are built under the model's own `tf.Graph`, so several models can be open, and eager
    execution stays as it is.

    Args:
      model_name, models_dir: as in model_folder.find_model; None is the best model that is here.
      device: as in tensorflow_session.choose_device.
      dtype: to compute in: float32, tf32 or bfloat16.
    Attributes:
      folder: the model on disk, a ModelFolder; hparams: its shape.
      encoder, and end_of_text, the id of `<|endoftext|>`: the vocabulary is read when it is first
        needed, as this takes a part of a second.
      device, dtype: as above.
    Raises: UserError, here and in all methods, if an argument or a file is wrong.
    """

    def __init__(
        self,
        model_name: str | Path | None = None,
        models_dir: str | Path = "models",
        *,
        device: str = "auto",
        dtype: str = "float32",
    ):
        check_device(device)
        names = ", ".join(DTYPES)
        require("dtype", dtype, typed_value("dtype", dtype, str) in DTYPES, f"one of {names}")
        self.folder, self._notice = choose_model(model_name, models_dir)
        self.hparams = self.folder.hparams
        self.device, self.dtype = device, dtype
        self.compute_dtype = "bfloat16" if dtype == "bfloat16" else "float32"
        self._weights = self.folder.weights
        self._session: Any = None
        self._built: dict[Hashable, Any] = {}  # the parts of the graph
        self._growing = threading.Lock()  # held while operations are added to the graph
        self._reading, self._in_use = threading.Lock(), threading.RLock()
        self._loading: Future[Any] | None = None  # in the background
        self._loader: int | None = None  # its thread's number
        self._processor = ""  # its description; "" once logged
        self._closed = False

    @cached_property
    def encoder(self) -> "Encoder":
        with self._loading_line():
            return self._read_vocabulary()

    @property
    def end_of_text(self) -> int:
        return self.encoder.end_of_text

    def build(
        self,
        key: Hashable,
        build: Callable[[], T],
        n_bytes: int = 0,
    ) -> T:
        """Build a part of the model's graph, unless it is there.

        The variables are read from the checkpoint while the first part is built.

        Args:
          key: the part's name.
          build: returns the part; called once for each key.
          n_bytes: memory that the part will need. If a CPU has less, that is an error before the
            weights are read, as Linux would kill the process later.
        """
        if key not in self._built:
            self._log_notice()
            line = contextlib.nullcontext() if self._built else self._loading_line()
            with line, self.alone():
                if key not in self._built:
                    self._build(key, build, n_bytes)
        self._log_processor()
        built: T = self._built[key]
        return built

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other thread is in such a block of the model, and keep them out of it."""
        check_process()  # no thread of the parent's would ever free the lock
        with self._in_use:
            yield

    def run(self, fetches: Any, feed: dict[Any, Any], **options: Any) -> Any:
        """Session.run, in which a lack of memory is a UserError."""
        self._open()
        import tensorflow.compat.v1 as tf

        try:
            return self._session.run(fetches, feed, **options)
        except (tf.errors.ResourceExhaustedError, MemoryError):
            raise _out_of_memory() from None

    def load_in_background(self, work: Callable[[], object], failed: Callable[[], object]) -> None:
        """Begin work that loads the model, in a thread. What needs the model waits for it.

        Args:
          failed: called in the thread if an exception ends the work; `check_loading` then raises
            it.
        """

        def load() -> None:
            self._loader = threading.get_ident()
            work()

        self._log_notice()
        self._loading = background.start(load)
        self._loading.add_done_callback(lambda loading: loading.exception() and failed())

    def check_loading(self) -> None:
        """Raise the error that ended the loading in the background, if one did."""
        if self._loading is not None and self._loading.done():
            self._loading.result()

    def fingerprint(self) -> str:
        """A short name for the weights, which other weights do not share."""
        return self.folder.fingerprint

    def damaged(self) -> DamagedModelError:
        """The error for logits that are not numbers."""
        return DamagedModelError(
            f"{self._weights}: the weights are damaged: they give logits that are not numbers; "
            "download or train the model again"
        )

    def close(self) -> None:
        """Free the model's memory. The object cannot be used afterwards.

        Waits for what another thread computes with it.
        """
        with self.alone():
            if self._session is not None:
                self._session.close()
            self._session, self._closed = None, True
            self._built.clear()

    def __enter__(self) -> "ModelSession":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self, n_bytes: int = 0) -> None:
        """Import TensorFlow and open a session, unless it is open."""
        check_process()
        if self._closed:
            raise UserError("the model is closed")
        if self._session is not None:
            return
        self._log_notice()
        self._read_vocabulary()  # a broken one is reported before TensorFlow is imported
        tf = import_tensorflow()
        config, processor = choose_device(self.device, tf)
        if not processor.startswith("GPU") and n_bytes > memory_bytes():
            raise _out_of_memory()
        self._processor = processor if self.device == "auto" else ""
        if self.dtype == "bfloat16" and not (
            processor.startswith("GPU") or engine.stores_bfloat16(self.dtype)
        ):
            log.warning(SLOW_BFLOAT16)
        tf.config.experimental.enable_tensor_float_32_execution(self.dtype == "tf32")
        self._session = open_session(tf, config, self._growing)

    def _build(self, key: Hashable, build: Callable[[], object], n_bytes: int) -> None:
        self._open(n_bytes)
        import tensorflow.compat.v1 as tf

        import decoder
        import narrow_weights

        part: object = None

        def work() -> None:
            nonlocal part
            with self._growing, interrupted_afterwards(), without_collections(stays=False):
                part = build()

        creator = tf.variable_creator_scope(checkpoint.without_initializers)
        getter = narrow_weights.storage(self.compute_dtype)
        # A scope that is made in a caller's graph would stay in it.
        with self._session.graph.as_default(), creator, tf.variable_scope("", custom_getter=getter):
            if self._built:
                work()
            else:
                # The files were found when the model was opened, which may be long ago.
                _ = ModelFolder(self.folder.path).weights
                with interrupted_afterwards():
                    decoder.create_variables(self.hparams)
                every = self._session.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
                checkpoint.restore(
                    self._session,
                    self._weights,
                    [v for v in every if v.op.name != f"model/{narrow_weights.WTE_MEAN}"],
                    meanwhile=work,
                )
        self._built[key] = part

    def _read_vocabulary(self) -> "Encoder":
        with self._reading, without_collections():  # one thread; another that needs it waits
            return self.folder.encoder

    def _log_notice(self) -> None:
        if self._notice:
            log.warning(self._notice)
        self._notice = ""

    def _log_processor(self) -> None:
        """Name the processor, once, and not next to a prompt at which somebody types."""
        if self._processor and threading.get_ident() != self._loader:
            log.info("running on %s", self._processor)
            self._processor = ""

    def _loading_line(self) -> contextlib.AbstractContextManager[None]:
        """A status line; but not next to a prompt at which somebody types."""
        in_background = threading.get_ident() == self._loader
        line = f"loading {self.folder.name} ..."
        return contextlib.nullcontext() if in_background else status_line(line)


def _out_of_memory() -> UserError:
    return UserError("out of memory; try a smaller --batch_size, or a shorter --length or --window")
