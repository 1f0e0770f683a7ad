"""download_model.py against a server in the form of Hugging Face's, which sends on to another."""

import hashlib
import json

import misbehaving_server as bad
import pytest
from misbehaving_server import MisbehavingServer, serve_as_hub

import download_model
from gpt2.conversion import from_hf, to_hf
from gpt2.download import hub, release
from gpt2.download.release import FILES, SUMS
from gpt2.model_folder import ModelFolder

pytest.importorskip("safetensors", reason="pip install -r requirements-convert.txt")
NAME = "lab/toy"
TOKEN = "hf_secret"
CONFIG = {"model_type": "gpt2", "n_embd": 12, "n_head": 3, "n_layer": 2}
FORM = {
    "config.json": json.dumps(CONFIG).encode(),
    "vocab.json": b'{"a": 0}',
    "merges.txt": b"#version: 0.2\n",
    "model.safetensors": bytes(i * i % 251 for i in range(50000)),
}
WEIGHTS = f"/{NAME}/model.safetensors"


@pytest.fixture
def cdn():
    with MisbehavingServer({}) as server:
        yield server


@pytest.fixture
def server(cdn, monkeypatch):
    """A hub with one model; nothing is published about others."""
    monkeypatch.setattr(hub, "PUBLISHED", {})
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with MisbehavingServer({}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        serve_as_hub(server, cdn, NAME, FORM)
        yield server


@pytest.fixture
def converted(monkeypatch):
    """The folders that were converted; conversion itself has its own tests."""
    seen = []

    def convert(source, target):
        seen.append({p.name: p.read_bytes() for p in source.iterdir() if p.name != SUMS})
        target.mkdir()
        for name in FILES:
            (target / name).write_bytes(b'{"a": 0}')

    monkeypatch.setattr(from_hf, "convert", convert)
    monkeypatch.setattr(release, "tensor_problem", lambda data: "")
    return seen


def run(models_dir, *arguments):
    waits = ["--retry_wait", "0.001", "--models_dir", str(models_dir)]
    return download_model.main([*arguments, *waits])


def said(capsys):
    err = capsys.readouterr().err
    assert "Traceback" not in err and TOKEN not in err
    return err


def test_model_is_fetched_by_its_name_and_converted(tf, tiny, server, cdn, tmp_path, capsys):
    """The only test with a real conversion: the weights are those that were put there."""
    form = tmp_path / "form"
    to_hf.convert(ModelFolder(tiny.folder), form)
    serve_as_hub(server, cdn, NAME, {path.name: path.read_bytes() for path in form.iterdir()})
    assert run(tmp_path / "models", NAME) == 0
    folder = tmp_path / "models" / "toy"
    assert {path.name for path in folder.iterdir()} == {*FILES, SUMS}
    reader = tf.train.load_checkpoint(str(folder / "model.ckpt"))
    assert (reader.get_tensor("model/wte") == tiny.weights["model/wte"]).all()
    assert (
        (folder / SUMS).read_text().startswith(f"# converted from {server.url}/{NAME}@{'c' * 40}")
    )
    requests = len(server.requests)
    assert run(tmp_path / "models", NAME) == 0 == run(tmp_path / "models", "--verify", "toy")
    assert said(capsys).count("already complete") == len(FILES)
    assert len(server.requests) == requests


def test_all_files_are_of_the_commit_that_the_first_belongs_to(server, converted, tmp_path):
    assert run(tmp_path, NAME) == 0
    asked = [path.split("/")[4] for path, _ in server.requests]
    assert asked == ["main"] + ["c" * 40] * (len(asked) - 1)
    assert converted == [FORM]


def test_revision_is_asked_for(server, cdn, converted, tmp_path):
    assert run(tmp_path, NAME, "--revision", "refs/pr/1") == 1
    assert server.requests[0][0] == f"/{NAME}/resolve/refs%2Fpr%2F1/config.json"


@pytest.mark.parametrize("drops", [[10], [0, 20000], [49999]])
def test_weights_resume_where_they_stopped(server, cdn, converted, tmp_path, drops):
    cdn.faults[WEIGHTS] = [bad.drop(count) for count in drops]
    assert run(tmp_path, NAME) == 0
    assert cdn.sent[WEIGHTS] == len(FORM["model.safetensors"])
    assert converted == [FORM]


def test_next_run_fetches_only_what_is_missing(server, cdn, converted, tmp_path):
    cdn.always[WEIGHTS] = bad.status(500)
    assert run(tmp_path, NAME) == 1
    assert not converted
    cdn.always.clear()
    server.requests.clear()
    assert run(tmp_path, NAME) == 0
    names = [path.rpartition("/")[2] for path, _ in server.requests]
    assert "config.json" in names and "vocab.json" not in names
    assert converted == [FORM]


def test_a_new_version_takes_nothing_from_the_old_one(server, cdn, converted, tmp_path):
    cdn.faults[WEIGHTS] = [bad.status(404)]
    assert run(tmp_path, NAME) == 1
    new = FORM | {"vocab.json": b'{"b": 0}', "model.safetensors": bytes(60000)}
    serve_as_hub(server, cdn, NAME, new, commit="d" * 40)
    assert run(tmp_path, NAME) == 0
    assert converted == [new]


@pytest.mark.parametrize(
    "fault, part",
    [
        (bad.other_content(bytes(50000)), "has SHA-256"),
        (bad.other_content(b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
        (bad.status(403), "403"),
        (bad.status(200, {}, b"<html>"), "web page"),
        (bad.wrong_length(10**15), "instead of at most"),
    ],
)
def test_wrong_weights_are_refused(server, cdn, converted, tmp_path, capsys, fault, part):
    cdn.always[WEIGHTS] = fault
    assert run(tmp_path, NAME) == 1
    assert part in said(capsys).splitlines()[-1]
    assert not converted and not list((tmp_path / "toy").glob("*.index"))


def test_private_model_needs_a_token_which_only_the_hub_sees(
    server, cdn, converted, tmp_path, capsys, monkeypatch
):
    serve_as_hub(server, cdn, NAME, FORM, token=TOKEN)
    assert run(tmp_path, NAME) == 1
    assert "401" in (err := said(capsys)) and "HF_TOKEN" in err and "Invalid username" in err
    assert not (tmp_path / "toy" / "hparams.json").exists()
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\n")
    assert run(tmp_path, NAME) == 0
    said(capsys)
    assert cdn.requests and not any("Authorization" in headers for _, headers in cdn.requests)


def test_token_that_a_server_repeats_is_not_shown(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.always[f"/{NAME}/resolve/main/config.json"] = bad.status(
        401, {"X-Error-Message": f"{TOKEN} is expired"}
    )
    assert run(tmp_path, NAME) == 1
    assert "... is expired" in said(capsys)
    assert list(tmp_path.iterdir()) == []  # nothing came, and nothing is left


@pytest.mark.parametrize("token", ["two words", "a\nb", "é"])
def test_impossible_token_is_refused_unseen(server, tmp_path, capsys, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SystemExit):
        run(tmp_path, NAME)
    err = capsys.readouterr().err
    assert "HF_TOKEN" in err and token not in err


def test_split_weights(server, cdn, converted, tmp_path):
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1], "c": names[0]}}
    form = {name: body for name, body in FORM.items() if name != "model.safetensors"}
    form |= {name: bytes(1000) for name in names}
    form |= {"model.safetensors.index.json": json.dumps(index).encode()}
    server.always.clear()
    serve_as_hub(server, cdn, NAME, form)
    assert run(tmp_path, NAME) == 0
    assert converted == [form]


@pytest.mark.parametrize("names", [["../x"], [5], {}, {"a": "/etc/passwd"}, {"a": ["b"]}, None])
def test_odd_list_of_weights_is_refused(server, cdn, converted, tmp_path, capsys, names):
    form = {name: body for name, body in FORM.items() if name != "model.safetensors"}
    form |= {"model.safetensors.index.json": json.dumps({"weight_map": names}).encode()}
    server.always.clear()
    serve_as_hub(server, cdn, NAME, form)
    assert run(tmp_path, NAME) in (1, 2)
    assert said(capsys).splitlines()[-1].startswith("download_model.py: ")
    assert not converted


def test_pickled_weights_are_not_fetched(server, cdn, converted, tmp_path, capsys):
    form = FORM | {"pytorch_model.bin": b"pickle"}
    del form["model.safetensors"]
    server.always.clear()
    serve_as_hub(server, cdn, NAME, form)
    assert run(tmp_path, NAME) == 1
    assert "pickle" in said(capsys)
    assert not any(path.endswith(".bin") for path, _ in server.requests)


def test_another_kind_of_model_is_refused_before_its_weights(server, cdn, tmp_path, capsys):
    form = FORM | {"config.json": b'{"model_type": "llama"}'}
    serve_as_hub(server, cdn, NAME, form)
    assert run(tmp_path, NAME) == 2
    assert "'llama'" in said(capsys)
    assert not cdn.requests


def test_complete_model_of_another_source_is_kept(server, converted, tmp_path, capsys):
    folder = tmp_path / "toy"
    folder.mkdir()
    embedded = download_model.ROOT / "models" / "1M"
    for name in FILES:
        (folder / name).write_bytes((embedded / name).read_bytes())
    assert run(tmp_path, NAME) == 1
    assert "--force" in said(capsys) and not server.requests
    assert run(tmp_path, NAME, "--force") == 0
    assert (folder / "encoder.json").read_bytes() == b'{"a": 0}'


# The released models


@pytest.fixture
def openai(monkeypatch):
    """OpenAI's two addresses."""
    with MisbehavingServer({}) as first, MisbehavingServer({}) as second:
        monkeypatch.setattr(download_model, "BASE_URLS", [first.url, second.url])
        monkeypatch.delenv("GPT2_BASE_URL", raising=False)
        yield first, second


@pytest.mark.parametrize("fault", [bad.status(404), bad.status(503), bad.drop(0)])
def test_second_source_is_taken_when_the_first_fails(
    server, cdn, openai, converted, tmp_path, capsys, fault
):
    for address in openai:
        address.missing = fault
    serve_as_hub(server, cdn, "openai-community/gpt2", FORM)
    assert run(tmp_path, "117M") == 0
    err = said(capsys)
    assert f"{openai[0].url}/124M/checkpoint: " in err
    assert f"; trying {server.url}/openai-community/gpt2" in err
    assert all(address.requests for address in openai)
    assert converted == [FORM]
    assert run(tmp_path, "117M") == 0 == run(tmp_path, "--verify", "117M")


@pytest.mark.parametrize("source", ["openai", "huggingface"])
def test_source_that_is_named_is_the_only_one(server, openai, converted, tmp_path, source, cdn):
    serve_as_hub(server, cdn, "openai-community/gpt2-xl", FORM)
    assert run(tmp_path, "1542M", "--source", source) == (source == "openai")
    assert bool(server.requests) == (source == "huggingface")
    assert bool(openai[0].requests) == (source == "openai")


def test_second_address_is_taken_when_the_first_fails(openai, tmp_path, monkeypatch, capsys):
    body = b'model_checkpoint_path: "model.ckpt"\n'
    known = {"checkpoint": release.Known(len(body), hashlib.sha256(body).hexdigest())}
    monkeypatch.setattr(release, "RELEASED", {"124M": known})
    openai[0].missing = bad.status(500)
    openai[1].files["/124M/checkpoint"] = body
    assert run(tmp_path, "117M", "--source", "openai") == 1  # the other files are not there
    assert (tmp_path / "117M" / "checkpoint").read_bytes() == body
    assert f"; trying {openai[1].url}/124M/checkpoint" in said(capsys)
    assert len(openai[0].requests) == 2  # it is not tried again for the next file


def test_published_hashes_bind_the_hub_too(server, cdn, openai, tmp_path, monkeypatch, capsys):
    sha256 = "0" * 64
    known = {("openai-community/gpt2", "model.safetensors"): release.Known(sha256=sha256)}
    monkeypatch.setattr(hub, "PUBLISHED", known)
    serve_as_hub(server, cdn, "openai-community/gpt2", FORM)
    assert run(tmp_path, "117M", "--source", "huggingface") == 1
    assert f"instead of {sha256}" in said(capsys)
