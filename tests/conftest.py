"""What the tests share: where the reference data lies, and the order they run in."""

import contextlib
import importlib
import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import model_weights
import pytest

from gpt2.command_line import run
from gpt2.tensorflow_session import import_tensorflow
from hparams import HParams

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"  # reference numbers of the original; a fresh clone has none

MAINS = {  # the function that a script's flags go to
    "generate_unconditional_samples": "sample_model",
    "interactive_conditional_samples": "interact_model",
    "generate_conditional_samples": "continue_model",
}

# A shell makes its background jobs ignore Ctrl-C, and their children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def shared(name: str) -> Path:
    """Path of a reference file; the test is skipped where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"reference data is not here: {path}")
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the scripts last, but the longest of these tests first: so all workers end together."""

    def order(item: pytest.Item) -> tuple[bool, bool]:
        is_late = item.get_closest_marker("end_to_end") is not None
        return is_late, item.path.stem not in ("test_examples_notebook", "test_ray_workers")

    items.sort(key=order)


@pytest.fixture(scope="session")
def tf() -> Any:
    """tensorflow.compat.v1, set up as the scripts set it up."""
    return import_tensorflow()


@pytest.fixture(scope="session")
def tiny(tf: Any, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model of random weights on disk, with the embedded one's vocabulary.

    Attributes: folder, hparams, and weights, which numpy_gpt2 takes.
    """
    import model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copyfile(ROOT / "models" / "1M" / name, folder / name)
    hparams = HParams(n_vocab=1280, n_ctx=512, n_embd=12, n_head=3, n_layer=2)
    (folder / "hparams.json").write_text(json.dumps(asdict(hparams)), encoding="utf-8")
    weights = model_weights.random_weights(hparams)
    with tf.Graph().as_default(), tf.Session() as session:
        model.model(hparams, tf.placeholder(tf.int32, [None, None]))
        model_weights.assign(tf, session, weights)
        saver = tf.train.Saver(save_relative_paths=True)
        saver.save(session, str(folder / "model.ckpt"), write_meta_graph=False)
    return SimpleNamespace(folder=folder, hparams=hparams, weights=weights)


@contextlib.contextmanager
def new_session(tf: Any) -> Iterator[Any]:
    """A session with a graph of its own, which is the default graph inside `with`."""
    config = tf.ConfigProto()
    # To rewrite a graph for speed takes longer than to run it a few times.
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        yield session


@pytest.fixture
def sess(tf: Any) -> Iterator[Any]:
    """A new_session for the whole test."""
    with new_session(tf) as session:
        yield session


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls what a script does, with its command line, as if in a process of its own."""

    def run_here(work: Callable[[], object], *command: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", [*map(str, command)])
        capsys.readouterr()
        try:
            work()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        return subprocess.CompletedProcess(sys.argv, status, *capsys.readouterr())

    return run_here


@pytest.fixture
def call_here(
    monkeypatch: pytest.MonkeyPatch, run_here: Callable[..., subprocess.CompletedProcess[str]]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a sampling script in the process of the tests."""

    def call_here(
        script: Path, *flags: object, input: str = "", model: type | None = None
    ) -> subprocess.CompletedProcess[str]:
        module = importlib.import_module(script.stem)
        if model:
            monkeypatch.setattr(module, "LanguageModel", model)
        stdin = io.TextIOWrapper(io.BytesIO(input.encode()), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", stdin)
        return run_here(lambda: run(getattr(module, MAINS[script.stem])), script, *flags)

    return call_here
