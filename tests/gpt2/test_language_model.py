"""How much memory a batch takes, and the error when there is not enough."""

from types import SimpleNamespace

import pytest

import engine
from gpt2 import language_model, memory
from hparams import HParams, default_hparams
from user_error import UserError

OPTIONS = {"model_name": "1M", "seed": 1, "length": 64, "device": "cpu"}


@pytest.fixture
def container(monkeypatch, tmp_path):
    """Give this process the memory limit of a container, as its file has it."""
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", [tmp_path / "nothing", limit])
    return lambda text: limit.write_text(text, encoding="utf-8")


def test_the_batch_fits_a_quarter_of_a_containers_memory(container, monkeypatch):
    container("1000000000\n")
    n_layer, n_ctx, n_embd = 12, 1024, 768
    keys_and_values = 4 * 2 * n_layer * n_ctx * n_embd
    monkeypatch.setattr(engine, "bytes_of_a_weight", lambda batch_size, dtype: 4)
    assert memory.default_batch_size(default_hparams()) == 250_000_000 // keys_and_values == 3
    # Two copies of the weights fill it: only one sample alone needs no second copy.
    monkeypatch.setattr(engine, "bytes_of_a_weight", lambda batch_size, dtype: 8)
    assert memory.default_batch_size(default_hparams()) == 1


@pytest.mark.parametrize(("kind", "n_bytes"), [("avx512", [4, 8]), ("other", [4, 4])])
def test_packed_weights_are_a_second_copy(monkeypatch, kind, n_bytes):
    monkeypatch.setattr(engine, "processor", lambda: kind)
    monkeypatch.delenv("GPT2_ENGINE", raising=False)
    assert [engine.bytes_of_a_weight(batch_size) for batch_size in (1, 8)] == n_bytes


def test_a_batch_has_one_sample_at_least_and_32_at_most(container):
    container("1000")
    assert memory.default_batch_size(default_hparams()) == 1
    container("1000000000000")
    assert memory.default_batch_size(HParams(n_ctx=8, n_embd=4)) == 32


def test_a_container_without_a_limit_has_the_machines_memory(container):
    before = memory.memory_bytes()
    container("max\n")
    assert memory.memory_bytes() == before > 1 << 28


def test_samples_that_cannot_fit_are_refused_before_the_weights_are_read(container):
    container("8000000")
    model = language_model.LanguageModel(batch_size=30, **OPTIONS)
    with pytest.raises(UserError, match="out of memory; try a smaller"):
        model.prepare()
    assert model.session._session is None


@pytest.mark.parametrize("native", [True, False])
def test_memory_that_runs_out_on_the_way_is_one_line(tf, native):
    error = tf.errors.ResourceExhaustedError(None, None, "OOM") if native else MemoryError()

    def fail(fetches, feed):
        raise error

    model = language_model.LanguageModel(batch_size=2, **OPTIONS)
    model.session._session = SimpleNamespace(run=fail)
    with pytest.raises(UserError, match="out of memory; try a smaller"):
        model.session.run([], {})
