"""gpt-2-samples/: its files are what their commands make."""

import html
import re

import pytest
from conftest import ROOT

FOLDER = ROOT / "gpt-2-samples"
BY_PEOPLE = {FOLDER / "prompts.txt", FOLDER / "human.txt"}
FILES = sorted(set(FOLDER.glob("*.txt")) - BY_PEOPLE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_say_what_they_are(path):
    what, _, command, *_ = path.read_text(encoding="utf-8").splitlines()
    assert what.startswith("# Synthetic text: no person wrote it, the model 1M did.")
    assert command.startswith("# python src/generate_")
    assert "--seed" in command


def test_the_command_in_a_file_makes_its_beginning_again(call_here, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (FOLDER / "unconditional-topk40.txt").read_text(encoding="utf-8")
    command = text.splitlines()[2].removeprefix("# python ").replace("samples 20", "samples 1")
    script, *flags = command.split()
    done = call_here(ROOT / script, *flags, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    # Another processor may round a sum differently, so that some token differs sooner or later.
    beginning = "\n".join(done.stdout.splitlines()[1:7])
    assert len(beginning) > 120
    assert beginning in text


def test_the_page_shows_the_human_and_a_synthetic_text():
    page = (FOLDER / "human-and-synthetic.html").read_text(encoding="utf-8")
    human = (FOLDER / "human.txt").read_text(encoding="utf-8")
    assert html.escape(human) in re.sub(r"</?(p|span)\b.*?>", "", page, flags=re.DOTALL)
    assert "<h2>human.txt</h2>" in page
    assert "<h2>synthetic.txt</h2>" in page
    script = (ROOT / "src" / "gpt2" / "evaluation" / "page.js").read_text(encoding="utf-8")
    assert script in page, "the page is older than page.js: make gpt-2-samples"
