"""Checks of the Docker images that need no build; tools/build_image.sh builds and tries them."""

import re

import pytest
from conftest import ROOT
from docker.utils.build import exclude_paths
from fake_model import FakeModel

DOCKERFILES = ["Dockerfile.cpu", "Dockerfile.gpu"]
GREETING = "tools/docker_greeting.txt"


def instructions(name):
    """The instructions of a Dockerfile and their arguments, each in one line."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != "#"]


def sent(folder):
    """The files of a folder that .dockerignore lets into an image."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    paths = exclude_paths(str(folder), [line for line in lines if line[0] != "#"])
    return {path.replace("\\", "/") for path in paths if (folder / path).is_file()}


def test_only_what_runs_is_sent_to_the_build(tmp_path):
    wanted = {
        *("LICENSE", "download_model.py", "requirements.txt", GREETING),
        *("models/1M/hparams.json", "models/1M/model.ckpt.data-00000-of-00001", "src/model.py"),
    }
    unwanted = {
        *(".git/config", ".venv/bin/python", ".env", "checkpoint/run/model.ckpt.index"),
        *("models/117M/model.ckpt.index", "src/__pycache__/model.cpython-312.pyc", "notes.txt"),
        *("models/1M/part.vocab.bpe", "models/1M/SHA256SUMS", "dump.jsonl"),
    }
    for name in wanted | unwanted:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert sent(tmp_path) == wanted


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_an_image_is_built_from_is_sent(name):
    copied = [arguments.split()[0] for word, arguments in instructions(name) if word == "COPY"]
    assert copied[0] == "requirements.txt"
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.py")}
    assert {"requirements.txt", GREETING, *sources} < sent(ROOT)
    assert instructions(name)[-1] == ["CMD", f'["cat", "{GREETING}"]']


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_change_of_the_sources_does_not_install_again(name):
    steps = [" ".join(step) for step in instructions(name)]
    (install,) = [number for number, step in enumerate(steps) if "pip install" in step]
    (sources,) = [number for number, step in enumerate(steps) if re.match(r"COPY .*\. \./$", step)]
    assert steps.index("COPY requirements.txt ./") < install < sources


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_do_not_run_as_root(name):
    users = [arguments for word, arguments in instructions(name) if word == "USER"]
    assert users[-1] not in ("root", "0")


def test_the_greetings_examples_sample(call_here):
    text = (ROOT / GREETING).read_text(encoding="utf-8")
    commands = {c.split()[0]: c.split()[1:] for c in re.findall(r"python3 (src/.*)", text)}
    assert len(commands) >= 2
    for script, flags in commands.items():
        chosen = [*flags, "--model_name", "1M", "--length", "20"]
        done = call_here(ROOT / script, *chosen, input="To be\n", model=FakeModel)
        assert done.returncode == 0, done.stderr
        assert " SAMPLE 1 " in done.stdout
