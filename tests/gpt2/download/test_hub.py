"""download_model.py with a model on a server that speaks Hugging Face's protocol."""

import json
import logging
import sys

import misbehaving_server as bad
import pytest
from misbehaving_server import MisbehavingServer, serve_as_hub

import download_model
from gpt2.command_line import run as run_script
from gpt2.conversion import from_hf, to_hf
from gpt2.download import check, hub
from gpt2.download.folder import SUMS
from gpt2.download.released_files import FILES
from gpt2.model_folder import ModelFolder

pytest.importorskip("safetensors", reason="pip install -r requirements-convert.txt")
constants = pytest.importorskip("huggingface_hub.constants")
NAME = "lab/toy"
TOKEN = "hf_secret"
CONFIG = {"model_type": "gpt2", "n_embd": 12, "n_head": 3, "n_layer": 2}
HUB_FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "vocab.json": b'{"a": 0}',
    "merges.txt": b"#version: 0.2\n",
    "model.safetensors": bytes(i * i % 251 for i in range(50000)),
}


@pytest.fixture
def cdn():
    with MisbehavingServer({}) as server:
        yield server


@pytest.fixture
def server(cdn, monkeypatch, tmp_path):
    """A hub with one model, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    # The library's handler keeps the stderr of the test that imported it.
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "handlers", [])
    with MisbehavingServer({}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        serve_as_hub(server, cdn, NAME, HUB_FILES)
        yield server


@pytest.fixture
def converted(monkeypatch):
    """The folders that were converted; conversion itself has its own tests."""
    seen = []

    def convert(source, target):
        seen.append({path.name: path.read_bytes() for path in source.iterdir()})
        target.mkdir()
        for name in FILES:
            (target / name).write_bytes(b'{"a": 0}')

    monkeypatch.setattr(from_hf, "convert", convert)
    monkeypatch.setattr(check, "tensor_problem", lambda data: "")
    return seen


@pytest.fixture
def download(run_here, tmp_path):
    """Runs download_model.py; its status and what it printed on stderr."""

    def download(*arguments):
        flags = ["--retry_wait=0.001", f"--models_dir={tmp_path / 'models'}"]
        command = ["download_model.py", *flags, *arguments]
        result = run_here(lambda: run_script(download_model.download_models), *command)
        assert "Traceback" not in result.stderr and TOKEN not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith(f"{command[0]}: ")]
        assert len(lines) == (1 if result.returncode else 0)
        return result.returncode, result.stderr

    return download


def test_model_is_converted_and_not_asked_for_again(tf, tiny, server, cdn, tmp_path, download):
    """The only test with a real conversion: the weights are those that were put there."""
    source = tmp_path / "source"
    to_hf.convert(ModelFolder(tiny.folder), source)
    serve_as_hub(server, cdn, NAME, {path.name: path.read_bytes() for path in source.iterdir()})
    assert download(NAME)[0] == 0
    folder = tmp_path / "models" / "toy"
    assert {path.name for path in folder.iterdir()} == {*FILES, SUMS}
    reader = tf.train.load_checkpoint(str(folder / "model.ckpt"))
    assert (reader.get_tensor("model/wte") == tiny.weights["model/wte"]).all()
    origin = f"# converted from {server.url}/{NAME}@{'c' * 40} main\n"
    assert (folder / SUMS).read_text().startswith(origin)
    server.requests.clear()
    assert download(NAME)[1].count("already complete") == len(FILES)
    assert download("--verify", "toy")[0] == 0
    assert not server.requests


@pytest.mark.parametrize("name", ["{}/lab/toy", "https://huggingface.co/lab/toy", "lab/toy"])
def test_name_may_be_an_address_and_another_revision_is_another_model(
    server, converted, download, name
):
    asked = f"/api/models/{NAME}/revision/refs%2Fpr%2F1"
    server.always[asked] = server.always[f"/api/models/{NAME}/revision/main"]
    assert download(name.format(server.url), "--revision=refs/pr/1")[0] == 0
    assert server.requests[0][0] == asked
    server.requests.clear()
    assert download(NAME)[0] == 0
    assert server.requests[0][0] == f"/api/models/{NAME}/revision/main"


def test_what_is_in_the_cache_is_not_fetched_again_but_checked(
    server, cdn, converted, download, tmp_path, monkeypatch
):
    assert download(NAME)[0] == 0
    server.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download(NAME, f"--models_dir={tmp_path / 'more'}")[0] == 0
    assert converted == [HUB_FILES] * 2 and not server.requests
    (weights,) = (tmp_path / "cache").glob("**/snapshots/*/model.safetensors")
    weights.write_bytes(bytes(50000))
    status, err = download(NAME, f"--models_dir={tmp_path / 'last'}")
    assert status == 1 and "model.safetensors: has SHA-256" in err and "delete" in err


def test_private_model_needs_a_token_which_only_the_hub_sees(
    server, cdn, converted, download, monkeypatch
):
    serve_as_hub(server, cdn, NAME, HUB_FILES, token=TOKEN)
    status, err = download(NAME)
    assert status == 1 and "401" in err and "hf auth login" in err
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\n")
    assert download(NAME)[0] == 0
    assert cdn.requests and not any("Authorization" in headers for _, headers in cdn.requests)


def test_split_weights(server, cdn, converted, download):
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1], "c": names[0]}}
    files = {name: body for name, body in HUB_FILES.items() if name != "model.safetensors"}
    files |= {name: bytes(1000) for name in names}
    files |= {"model.safetensors.index.json": json.dumps(index).encode()}
    serve_as_hub(server, cdn, NAME, files | {"model.fp16.safetensors": bytes(10)})
    assert download(NAME)[0] == 0
    assert converted == [files]


def test_what_cannot_be_converted_is_refused_before_it_is_fetched(server, cdn, download):
    files = HUB_FILES | {"pytorch_model.bin": b"pickle"}
    del files["model.safetensors"]
    serve_as_hub(server, cdn, NAME, files)
    status, err = download(NAME)
    assert status == 1 and "pickle" in err
    assert not any(path.endswith(".bin") for path, _ in server.requests)
    files = HUB_FILES | {"config.json": b'{"model_type": "llama"}'}
    serve_as_hub(server, cdn, NAME, files, "d" * 40)
    status, err = download(NAME)
    assert status == 2 and "'llama'" in err and not cdn.requests


@pytest.mark.parametrize(
    "name, revision, part",
    [
        ("lab/none", "main", "404; check the name"),
        ("lab/toy", "none", "the revision (none)"),
        ("lab/toy", "busy", "the server answers 503; later"),
    ],
)
def test_what_the_hub_does_not_have_is_named(server, download, name, revision, part):
    server.always[f"/api/models/{NAME}/revision/busy"] = bad.status(503)  # of a plain mirror
    status, err = download(name, "--revision", revision)
    assert status == 1 and part in err


def test_missing_network_or_library_is_named(server, download, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    status, err = download(NAME)
    assert status == 1 and "unset HF_HUB_OFFLINE" in err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    status, err = download(NAME)
    assert status == 2 and "pip install huggingface_hub" in err


# The released models


@pytest.fixture
def openai(monkeypatch):
    """OpenAI's server, which has nothing."""
    with MisbehavingServer({}) as server:
        monkeypatch.setattr(download_model, "BASE_URL", server.url)
        monkeypatch.delenv("GPT2_BASE_URL", raising=False)
        yield server


def test_second_source_is_taken_when_the_first_fails(
    server, cdn, openai, converted, download, monkeypatch
):
    monkeypatch.setattr(hub, "HASHES", {})
    serve_as_hub(server, cdn, "openai-community/gpt2", HUB_FILES)
    status, err = download("117M")
    assert status == 0 and openai.requests and converted == [HUB_FILES]
    assert "M/checkpoint: " in err
    assert f"; trying {server.url}/openai-community/gpt2" in err
    assert download("117M")[0] == 0 == download("--verify", "117M")[0]


@pytest.mark.parametrize("source", ["openai", "huggingface"])
def test_source_that_is_named_is_the_only_one(server, openai, converted, download, source, cdn):
    serve_as_hub(server, cdn, "openai-community/gpt2-xl", HUB_FILES)
    assert download("1542M", "--source", source)[0] == (source == "openai")
    assert bool(server.requests) == (source == "huggingface")
    assert bool(openai.requests) == (source == "openai")


def test_published_hashes_bind_the_hub_too(server, cdn, openai, download):
    serve_as_hub(server, cdn, "openai-community/gpt2", HUB_FILES)
    status, err = download("117M", "--source", "huggingface")
    assert status == 1 and f"instead of {hub.HASHES['merges.txt']}" in err
