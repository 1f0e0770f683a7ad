"""The rule of what computes, and how a user overrides it."""

import pytest

import engine
import onednn
from user_error import UserError

KINDS = {
    "avx512": "flags\t\t: fpu avx avx2 avx512f avx512_bf16\nbugs\t\t: none",
    "avx2": "flags\t\t: fpu avx avx2 fma",
    "other": "Features\t: fp asimd sve",
}


@pytest.fixture
def on(tf, monkeypatch):
    """A function that makes this a processor of a kind, without a GPU, and nothing overridden."""
    for name in ("GPT2_ENGINE", "TF_ENABLE_ONEDNN_OPTS", "TF_ONEDNN_USE_SYSTEM_ALLOCATOR"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(engine, "has_bfloat16", lambda: False)
    return lambda kind: monkeypatch.setattr(engine, "processor", lambda: kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_processor_is_read_from_its_flags(kind, monkeypatch):
    monkeypatch.setattr(engine.Path, "read_text", lambda path, encoding: KINDS[kind])
    assert engine.processor.__wrapped__() == kind
    assert engine.has_bfloat16.__wrapped__() == (kind == "avx512")


@pytest.mark.parametrize("kind", KINDS)
def test_one_sample_is_compiled_and_many_are_not_on_a_cpu(kind, on):
    on(kind)
    assert engine.rewrites_graphs() == (kind == "other")
    first = 2 if kind == "avx2" else 16
    names = [engine.choose(n) for n in (None, 1, first - 1, first)]
    assert names == ["xla", "xla", "xla", "tensorflow"]
    names = [engine.choose(n, "bfloat16", constant=True) for n in (1, first - 1, first)]
    assert names == ["xla", "xla", "tensorflow"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_compiled_for_a_quick_text(kind, tf, on, monkeypatch):
    on(kind)
    names = [engine.choose(n, constant=True, quick=True) for n in (1, 2)]
    assert names == ["tensorflow", "tensorflow" if kind == "other" else "packed"]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    assert engine.choose(8, constant=True, quick=True) == "tensorflow"


def test_bfloat16_is_stored_where_the_processor_computes_in_it(tf, on, monkeypatch):
    on("avx512")
    assert not engine.stores_bfloat16("bfloat16")
    monkeypatch.setattr(engine, "has_bfloat16", lambda: True)
    assert engine.stores_bfloat16("bfloat16")
    assert not engine.stores_bfloat16("float32")
    names = [engine.choose(n, "bfloat16", constant=True) for n in (1, 2, 64)]
    assert names == ["xla", "packed", "packed"]
    assert engine.choose(1, "bfloat16", constant=True, quick=True) == "packed"
    assert engine.choose(1, "bfloat16") == "xla"  # weights that change
    assert [engine.bytes_of_a_weight(n, "bfloat16") for n in (1, 2)] == [2, 4]
    monkeypatch.setenv("GPT2_ENGINE", "xla")
    assert not engine.stores_bfloat16("bfloat16")
    monkeypatch.delenv("GPT2_ENGINE")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    assert not engine.stores_bfloat16("bfloat16")


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_stay_the_same_are_packed_where_that_was_measured(kind, on, monkeypatch):
    on(kind)
    names = [engine.choose(n, constant=True) for n in (None, 1, 2, 16)]
    packs = ["packed", "packed"] if kind != "other" else ["xla", "tensorflow"]
    assert names == ["xla", "xla", *packs]
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert engine.choose(16, constant=True) == "tensorflow"


def test_weights_are_not_packed_where_tensorflow_lacks_the_private_operation(on, monkeypatch):
    on("avx2")
    monkeypatch.setattr(onednn, "FUSED_PRODUCT", "_NoSuchOperation")
    assert engine.choose(8, constant=True) == "tensorflow"


def test_all_batches_are_compiled_for_a_gpu(tf, on, monkeypatch):
    on("avx2")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    assert engine.choose(32, constant=True) == "xla"
    assert engine.rewrites_graphs()


@pytest.mark.parametrize("name", engine.ENGINES)
def test_the_user_chooses_the_engine(name, on, monkeypatch):
    on("avx2")
    monkeypatch.setenv("GPT2_ENGINE", name)
    assert {engine.choose(n, constant=True) for n in (None, 1, 1000)} == {name}
    if name == "packed":  # weights that change cannot be
        assert engine.choose(1) == engine.choose(1, "bfloat16", constant=True) == "tensorflow"
    assert engine.bytes_of_a_weight(1) == (8 if name == "packed" else 4)


def test_an_unknown_engine_is_refused_before_tensorflow_is_imported(monkeypatch):
    monkeypatch.setenv("GPT2_ENGINE", "torch")
    with pytest.raises(
        UserError, match="GPT2_ENGINE must be one of xla, tensorflow, packed, got torch"
    ):
        engine.set_environment()


def test_one_dnn_is_on_where_it_was_measured_unless_the_user_says_otherwise(on, monkeypatch):
    on("other")
    engine.set_environment()
    assert "TF_ENABLE_ONEDNN_OPTS" not in engine.os.environ
    on("avx2")
    engine.set_environment()
    assert engine.os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    engine.set_environment()
    assert engine.os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
