"""The commands in the documents run, and the files and links they name exist."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

FOLDERS = "benchmarks", "models", "gpt-2-samples"
DOCUMENTS = [
    "README.md",
    "DEVELOPERS.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
    *(f"{folder}/README.md" for folder in FOLDERS),
]
RUN = {"sh": ["sh", "-euc"], "python": [sys.executable, "-c"]}
SHOWN = {"", "bibtex", "yaml"}
BLOCK = re.compile(
    r"^(?:<!-- not run: ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks():
    """A case for each block that can be run; those that say why they are not are skipped."""
    for name in DOCUMENTS:
        text = read(name)
        for found in BLOCK.finditer(text):
            reason, language, code = found.groups()
            if language in SHOWN:
                continue
            line = text[: found.start(3)].count("\n") + 1
            marks = [pytest.mark.skip(reason=f"{name}, line {line}: {reason}")] if reason else []
            yield pytest.param(language, code, id=f"{name}:{line}", marks=marks)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A fresh clone, as it were, of what is in the repository now."""
    folder = tmp_path_factory.mktemp("a clone") / "gpt 2"
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in listed.split("\0"):
        if (ROOT / name).is_file():  # git still lists what was removed a moment ago
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    return folder


def git(folder, *arguments):
    command = ["git", *arguments]
    options = {"cwd": folder, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    return subprocess.run(command, check=True, **options).stdout


@pytest.mark.end_to_end
@pytest.mark.skipif(os.name != "posix", reason="the commands are for a POSIX shell")
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the list of files from git")
@pytest.mark.parametrize(("language", "code"), list(blocks()))
def test_commands_run_and_write_nothing_that_git_sees(copy, language, code):
    environment = os.environ | ({"PYTHONPATH": "src"} if language == "python" else {})
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "encoding": "utf-8"}
    command = [*RUN[language], code]
    done = subprocess.run(command, cwd=copy, env=environment, timeout=600, **options)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr  # also where a pipe hides the status
    assert git(copy, "ls-files", "--others", "--modified", "--exclude-standard") == ""


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)", read(name))
    for path, anchor in links:
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), anchor


def anchors(path):
    """The places that a link may lead to: the headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_are_there(name):
    folders = "src|tests|tools|benchmarks|gpt-2-samples|models/1M"
    for path in re.findall(rf"(?<![\w/.])(?:{folders})/[\w./-]*\.\w+", read(name)):
        assert (ROOT / path).exists(), path
