"""The rule of what computes, and how a user overrides it."""

import pytest

import engine
from user_error import UserError

KINDS = {
    "avx512": "flags\t\t: fpu avx avx2 avx512f avx512_vnni\nbugs\t\t: none",
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
    return lambda kind: monkeypatch.setattr(engine, "processor", lambda: kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_processor_is_read_from_its_flags(kind, monkeypatch):
    monkeypatch.setattr(engine.Path, "read_text", lambda path, encoding: KINDS[kind])
    assert engine.processor.__wrapped__() == kind


def test_without_a_list_of_flags_the_kind_is_other(monkeypatch):
    monkeypatch.setattr(engine, "CPUINFO", "/nowhere")
    assert engine.processor.__wrapped__() == "other"


@pytest.mark.parametrize("kind", KINDS)
def test_large_batches_are_not_compiled_for_a_cpu(kind, on):
    on(kind)
    for can_pack, first in (False, 2 if kind == "avx2" else 16), (True, 2):
        compiled = [engine.is_compiled(n, can_pack) for n in (None, 1, first - 1, first)]
        assert compiled == [True, True, True, False]


def test_weights_are_packed_where_it_was_measured_unless_the_user_says_otherwise(
    tf, on, monkeypatch
):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    packed = {}
    for kind in KINDS:
        on(kind)
        packed[kind] = engine.is_packed(tf.float32)
    assert packed == {"avx512": True, "avx2": True, "other": False}
    on("avx2")
    assert not engine.is_packed(tf.bfloat16)
    monkeypatch.setenv("GPT2_ENGINE", "tensorflow")
    assert not engine.is_packed(tf.float32)
    monkeypatch.setenv("GPT2_ENGINE", "packed")
    assert engine.is_packed(tf.float32)
    assert not engine.is_compiled(1)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert not engine.is_packed(tf.float32)


def test_weights_are_not_packed_where_tensorflow_lacks_the_private_operation(tf, on, monkeypatch):
    on("avx2")
    monkeypatch.setattr(engine, "FUSED_PRODUCT", "_NoSuchOperation")
    assert not engine.is_packed(tf.float32)
    assert not engine.is_compiled(8)


def test_all_batches_are_compiled_for_a_gpu(tf, on, monkeypatch):
    on("avx2")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    assert engine.is_compiled(32)
    assert not engine.is_packed(tf.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gelu_is_fused_where_that_is_faster(kind, tf, on, monkeypatch):
    on(kind)
    assert engine.fuses_gelu() == (kind == "avx512")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert not engine.fuses_gelu()


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_are_rewritten_where_they_are_not_built_for_the_processor(kind, tf, on, monkeypatch):
    on(kind)
    assert engine.rewrites_graphs() == (kind == "other")
    assert engine.has_fast_linear(tf.float32) == (kind != "other")
    assert not engine.has_fast_linear(tf.bfloat16)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    assert engine.rewrites_graphs()
    assert not engine.has_fast_linear(tf.float32)


def test_the_user_chooses_the_engine(on, monkeypatch):
    on("avx2")
    monkeypatch.setenv("GPT2_ENGINE", "xla")
    assert engine.is_compiled(1000)
    monkeypatch.setenv("GPT2_ENGINE", "tensorflow")
    assert not engine.is_compiled(1)
    monkeypatch.setenv("GPT2_ENGINE", "torch")
    with pytest.raises(
        UserError, match="GPT2_ENGINE must be one of xla, tensorflow, packed, got torch"
    ):
        engine.set_environment()  # before TensorFlow is imported


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
