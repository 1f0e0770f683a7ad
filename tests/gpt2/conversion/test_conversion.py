"""Conversion from and to Hugging Face's format. The real libraries are not needed."""

import json
import shutil
import sys

import ml_dtypes
import numpy as np
import pytest
from conftest import ROOT, new_session

from gpt2.conversion import from_hf, to_hf, to_saved_model
from gpt2.conversion import weights as hf_weights
from gpt2.model_folder import ModelFolder
from user_error import UserError

safetensors_numpy = pytest.importorskip(
    "safetensors.numpy", reason="pip install -r requirements-convert.txt"
)
MODEL = ROOT / "models" / "1M"
WEIGHTS = "model.safetensors"
DATA = "model.ckpt.data-00000-of-00001"


@pytest.fixture(scope="module")
def converted(tiny, tmp_path_factory):
    """The tiny model in Hugging Face's format."""
    folder = tmp_path_factory.mktemp("converted") / "tiny"
    to_hf.convert(ModelFolder(tiny.folder), folder)
    return folder


@pytest.fixture
def source(converted, tmp_path):
    """A copy to change."""
    return shutil.copytree(converted, tmp_path / "source")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "models" / "new"


def change(path, **fields):
    values = json.loads(path.read_text(encoding="utf-8")) | fields
    path.write_text(json.dumps(values), encoding="utf-8")


def change_tensors(source, function):
    """Rewrite the weights as what `function` makes of them; names are without the prefix."""
    tensors = safetensors_numpy.load_file(source / WEIGHTS)
    tensors = {name.removeprefix(hf_weights.PREFIX): value for name, value in tensors.items()}
    safetensors_numpy.save_file(function(tensors), source / WEIGHTS)


def check_weights(tf, folder, tiny, dtype=np.float32):
    """The checkpoint must have the tiny model's weights, as they are after rounding to a type."""
    reader = tf.train.load_checkpoint(str(folder / "model.ckpt"))
    assert reader.get_variable_to_shape_map().keys() == tiny.weights.keys()
    for name, value in tiny.weights.items():
        assert (reader.get_tensor(name) == value.astype(dtype).astype(np.float32)).all()


def refusal(source, target):
    """The one line that a conversion ends with; nothing may be left of it."""
    with pytest.raises(UserError) as caught:
        from_hf.convert(source, target)
    assert "\n" not in str(caught.value)
    assert list(target.parent.glob("*")) == []
    return str(caught.value)


def test_added_tokens_and_rows_without_a_token_are_kept(source, target, caplog):
    embedding = np.zeros([1344, 12], np.float32)
    change_tensors(source, lambda tensors: tensors | {"wte.weight": embedding})
    change(source / "config.json", vocab_size=1344, eos_token_id=7)
    added = [("[PAD]", 1280), ("<new é>", 1281), ("[NO ROW]", 1344)]
    added = [{"content": text, "id": i} for text, i in added]
    change(source / "tokenizer.json", added_tokens=added)
    from_hf.convert(source, target)
    assert caplog.messages == [
        "left out, as the model has no row for them: [NO ROW]",
        "texts end with <|endoftext|> here, not with token 7",
    ]
    assert ModelFolder(target).hparams.n_vocab == 1344
    assert ModelFolder(target).encoder.decode([1280, 1281]) == "[PAD]<new é>"


def test_shards_and_what_older_files_hold_next_to_the_weights(tf, tiny, source, target):
    tensors = safetensors_numpy.load_file(source / WEIGHTS)
    (source / WEIGHTS).unlink()
    mask = np.tri(4, dtype=np.uint8)[None, None]
    second = {name: tensors.pop(name) for name in list(tensors)[::2]}
    tensors["lm_head.weight"] = (second | tensors)["transformer.wte.weight"]
    second |= {"transformer.h.0.attn.bias": mask, "h.1.attn.masked_bias": mask[0, 0, 0]}
    for i, held in enumerate((tensors, second)):
        safetensors_numpy.save_file(held, source / f"model-0000{i}-of-00002.safetensors")
    from_hf.convert(source, target)
    check_weights(tf, target, tiny)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model_type", "gptj", "model_type is 'gptj'; this code can only use 'gpt2'"),
        ("architectures", ["GPT2ForSequenceClassification"], "architectures is ['GPT2ForSeq"),
        ("activation_function", "relu", "activation_function is 'relu'; this code can only use"),
        ("layer_norm_epsilon", 1e-6, "layer_norm_epsilon is 1e-06"),
        ("tie_word_embeddings", False, "tie_word_embeddings is False"),
        ("quantization_config", {"bits": 4}, "quantization_config is {'bits': 4}"),
        ("n_layer", 10**9, "has no tensor h.2.ln_1.weight, which its config.json needs"),
        ("n_layer", 1, "holds a tensor 'h.1.attn.c_attn.bias', which GPT-2 does not have"),
        ("n_positions", 300, "holds wpe.weight as [512, 12], not [300, 12]"),
        ("n_head", 5, "n_head must divide n_embd"),
    ],
)
def test_what_differs_from_gpt2_is_named(source, target, field, value, message):
    change(source / "config.json", **{field: value})
    assert message in refusal(source, target)


@pytest.mark.parametrize(
    ("change_them", "message"),
    [
        (lambda t: t | {"lm_head.weight": t["wte.weight"] + 1}, "has separate output weights"),
        (lambda t: t | {"score.weight": t["ln_f.bias"]}, "holds a tensor 'score.weight', which"),
        (lambda t: t | {"ln_f.bias": t["ln_f.bias"].astype("f8")}, "ln_f.bias as float64; only"),
        (lambda t: t | {"transformer.wpe.weight": t["wpe.weight"]}, "holds wpe.weight twice"),
        (lambda t: t | {"wpe.weight": t["wpe.weight"] * np.nan}, "wpe.weight with values that are"),
        (lambda t: {}, "has no tensor wte.weight"),
    ],
)
def test_tensors_that_are_not_gpt2s_are_named(source, target, change_them, message):
    change_tensors(source, change_them)
    assert message in refusal(source, target)


def test_damaged_weights_are_named(source, target):
    content = (source / WEIGHTS).read_bytes()
    (source / WEIGHTS).write_bytes(content[:-1])
    assert f"{WEIGHTS} cannot be read: " in refusal(source, target)


def test_a_pointer_of_git_lfs_is_named(source, target):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (source / WEIGHTS).write_text(pointer, encoding="utf-8")
    assert f"{WEIGHTS} is only a pointer to the file" in refusal(source, target)


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.json", "{"), ("tokenizer.json", "[]"), ("tokenizer_config.json", "\xff")],
)
def test_broken_json_is_named(source, target, name, text):
    (source / name).write_text(text, encoding="latin-1")
    assert f"{name} " in refusal(source, target)


def test_a_vocabulary_that_could_not_be_read_again_is_refused(source, target):
    tokenizer = json.loads((source / "tokenizer.json").read_bytes())
    tokenizer["model"]["vocab"] |= {"a": 1, "b": 1}
    change(source / "tokenizer.json", **tokenizer)
    message = refusal(source, target)
    assert message.startswith(f"the vocabulary cannot be used: {source}/")
    assert "two tokens have the same id" in message


def test_a_pickle_is_refused_with_the_reason(source, target):
    (source / WEIGHTS).rename(source / "pytorch_model.bin")
    assert "pytorch_model.bin is a pickle, which can run any code" in refusal(source, target)
    (source / "pytorch_model.bin").unlink()
    assert refusal(source, target).endswith("has no model.safetensors")


def test_without_the_library_the_command_that_installs_it_is_named(source, target, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    assert "pip install safetensors" in refusal(source, target)
    with pytest.raises(UserError, match="pip install safetensors"):
        to_hf.convert(ModelFolder(MODEL), target)


@pytest.mark.skipif(sys.platform == "win32", reason="the limit stands for a full disk")
@pytest.mark.parametrize("convert", [from_hf.convert, to_hf.convert, to_saved_model.convert])
def test_a_full_disk_leaves_nothing(tmp_path, target, convert):
    import resource

    source = ModelFolder(MODEL)
    if convert is from_hf.convert:
        to_hf.convert(source, source := tmp_path / "source")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot be written: ") as caught:
            convert(source, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename.startswith(str(target))
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_and_other_names_are_understood(tf, tiny, source, target, dtype):
    change(source / "config.json", activation_function="gelu_pytorch_tanh")

    def renamed(tensors):
        tensors["lm_head.weight"] = tensors.pop("wte.weight")  # as tied weights may be saved
        return {f"_orig_mod.module.transformer.{k}": v.astype(dtype) for k, v in tensors.items()}

    change_tensors(source, renamed)
    from_hf.convert(source, target)
    check_weights(tf, target, tiny, dtype)


def test_a_model_that_exists_is_not_touched(source, target):
    target.mkdir(parents=True)
    with pytest.raises(UserError, match="exists already"):
        from_hf.convert(source, target)
    assert list(target.iterdir()) == []


def test_a_model_that_is_damaged_is_not_converted(tmp_path):
    broken = shutil.copytree(MODEL, tmp_path / "broken")
    content = bytearray((broken / DATA).read_bytes())
    content[len(content) // 2] ^= 1
    (broken / DATA).write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        to_hf.convert(ModelFolder(broken), tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_checkpoint_that_is_not_finite_is_not_converted(tf, tiny, target, tmp_path):
    damaged = shutil.copytree(tiny.folder, tmp_path / "damaged")
    with new_session(tf) as session:
        for name, value in tiny.weights.items():
            tf.get_variable(name, initializer=value * np.float32(np.nan))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(damaged / "model.ckpt"), write_meta_graph=False)
    with pytest.raises(UserError, match="holds model/wte with values that are not finite"):
        to_hf.convert(ModelFolder(damaged), target)
