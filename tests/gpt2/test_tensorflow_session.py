"""A GPU that is asked for and not there: the error says why, and what to do."""

import sys
from types import SimpleNamespace

import pytest

from gpt2.tensorflow_session import choose_device
from hparams import UserError


@pytest.fixture
def refusal(tf, monkeypatch):
    """What is said of a GPU that TensorFlow does not see."""

    def ask(built_with_cuda, driver):
        found = "nvidia-smi" if driver else None
        monkeypatch.setattr("shutil.which", lambda name: found)
        blind = SimpleNamespace(
            config=SimpleNamespace(list_physical_devices=lambda kind: []),
            test=SimpleNamespace(is_built_with_cuda=lambda: built_with_cuda),
            ConfigProto=tf.ConfigProto,
        )
        with pytest.raises(UserError) as error:
            choose_device("gpu", blind)
        return str(error.value)

    return ask


def test_a_tensorflow_without_cuda_is_named(refusal):
    assert "this TensorFlow is built without CUDA; pip install" in refusal(False, True)


def test_a_missing_driver_is_named(refusal):
    assert "there is no NVIDIA driver; install one" in refusal(True, False)


def test_missing_libraries_are_named(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia", None)
    assert "libraries are missing: pip install" in refusal(True, True)


def test_libraries_that_are_not_found_are_to_be_put_on_the_path(refusal, monkeypatch, tmp_path):
    folder = tmp_path / "nvidia" / "cusolver"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    assert f'export LD_LIBRARY_PATH="{folder / "lib"}"' in refusal(True, True)
