"""A GPU that is not there, and Ctrl-C in TensorFlow's own code."""

import signal
import sys
import threading

import pytest

import engine
from gpt2.tensorflow_session import choose_device, interrupted_afterwards, open_session
from user_error import UserError


@pytest.fixture
def refusal(tf, monkeypatch):
    """A function that returns the error for a GPU that TensorFlow does not see."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])

    def ask():
        with pytest.raises(UserError) as error:
            choose_device("gpu", tf)
        return str(error.value)

    return ask


def test_a_gpu_that_is_not_seen_needs_a_driver_and_libraries(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia", None)
    assert "NVIDIA's driver and CUDA's libraries: pip install" in refusal()


def test_libraries_that_are_not_found_are_to_be_put_on_the_path(refusal, monkeypatch, tmp_path):
    folder = tmp_path / "nvidia" / "cusolver"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    assert f'export LD_LIBRARY_PATH="{folder / "lib"}"' in refusal()


def test_keras_is_there_though_the_import_leaves_it_out(tf):
    import tensorflow

    assert tensorflow.keras.__version__.startswith("3.")


class PressesCtrlC:
    """A number that interrupts whoever looks at it."""

    def __array__(self, dtype=None, copy=None):
        import numpy as np

        signal.raise_signal(signal.SIGINT)
        return np.array(2, dtype)


def test_ctrl_c_waits_for_the_end_of_a_run(tf):
    with open_session(tf, tf.ConfigProto(), threading.RLock()) as session:
        number = tf.placeholder(tf.int32, [])
        total = tf.get_variable("total", [], tf.int32, tf.zeros_initializer(), use_resource=True)
        session.run(total.initializer)
        with pytest.raises(KeyboardInterrupt):
            session.run(total.assign_add(number), {number: PressesCtrlC()})
        assert session.run(total) == 2
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_waits_for_the_end_of_an_outer_block_and_counts_once():
    ended = []
    with pytest.raises(KeyboardInterrupt), interrupted_afterwards():
        with interrupted_afterwards():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            ended.append("inner")
        ended.append("outer")
    assert ended == ["inner", "outer"]


def test_a_kill_that_python_handles_waits_for_the_end_of_the_block():
    ended = []
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with pytest.raises(SystemExit, match="143"), interrupted_afterwards():
            signal.raise_signal(signal.SIGTERM)
            ended.append("block")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended == ["block"]


def test_ctrl_c_stays_as_it_is_where_it_is_ignored_and_in_threads():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupted_afterwards():
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    held = []

    def work():
        with interrupted_afterwards():
            held.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert held == [before]


@pytest.mark.parametrize("rewrites", [True, False])
def test_graphs_are_rewritten_only_where_that_gains(tf, monkeypatch, rewrites):
    monkeypatch.setattr(engine, "rewrites_graphs", lambda: rewrites)
    config, _ = choose_device("cpu", tf)
    assert config.graph_options.rewrite_options.disable_meta_optimizer is not rewrites
