"""The prompt in a notebook: a real Jupyter kernel, whose `input` this test answers."""

import pytest
from conftest import ROOT
from jupyter_client.manager import KernelManager

pytestmark = pytest.mark.end_to_end
SCRIPT = ROOT / "src" / "interactive_conditional_samples.py"
SETUP = f"""
import sys
sys.path[:0] = [{str(ROOT / "src")!r}, {str(ROOT / "tests" / "helpers")!r}]
import fake_model
from gpt2 import language_model
language_model.LanguageModel = fake_model.FakeModel
"""
ASKS = [
    f"%run {SCRIPT} --model_name 1M",
    "from interactive_conditional_samples import interact_model; interact_model('1M')",
]


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    manager = KernelManager()  # of this Python
    manager.start_kernel(cwd=tmp_path)
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=300)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def execute(client, code, answers):
    """Run a cell, and answer what it asks for. Returns: what it printed."""
    printed = []

    def show(message):
        content = message["content"]
        printed.append(content.get("text", "") + content.get("evalue", ""))

    def answer(_):
        client.input(answers.pop(0))

    client.execute_interactive(
        code, allow_stdin=bool(answers), stdin_hook=answer, output_hook=show, timeout=300
    )
    return "".join(printed)


def test_a_notebook_asks_for_texts_and_stays_alive(kernel):
    execute(kernel, SETUP, [])
    for cell in ASKS:
        shown = execute(kernel, cell, ["ROMEO:", "/nsamples 2", "JULIET:", "/quit"])
        assert "[7.1] ROMEO:" in shown and "[7.3] JULIET:" in shown
        assert "Error" not in shown
    assert execute(kernel, "print(1 + 1)", []) == "2\n"
