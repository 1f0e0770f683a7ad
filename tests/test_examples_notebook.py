"""The notebook of examples runs in the kernel of a real Jupyter."""

import nbclient
import nbformat
import pytest
from conftest import ROOT

FOLDER = ROOT / "gpt-2-samples"


def run(notebook, folder):
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", coalesce_streams=True, resources=resources
    ).execute()


def kinds(notebook):
    """For each output: the number of its cell, its kind, and where it went."""
    return [
        (number, output.output_type, output.get("name", ""))
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
    ]


@pytest.fixture
def notebook(monkeypatch, tmp_path):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return nbformat.read(FOLDER / "gpt2.ipynb", as_version=4)


@pytest.mark.end_to_end
def test_the_notebook_runs_and_its_outputs_are_stored(notebook):
    stored = kinds(notebook)
    run(notebook, FOLDER)
    assert kinds(notebook) == stored
    assert {output[1:] for output in stored} == {("stream", "stdout"), ("display_data", "")}


@pytest.mark.end_to_end
def test_one_line_is_shown_if_the_repository_cannot_be_cloned(notebook, monkeypatch, tmp_path):
    address = str(tmp_path / "nothing")
    monkeypatch.setenv("GPT2_REPOSITORY", address)
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        run(notebook, tmp_path)
    (output,) = notebook.cells[2].outputs
    (line,) = output.traceback
    assert address in line and "set REPOSITORY" in line
