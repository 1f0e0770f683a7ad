"""The notebook of examples runs, in the kernel of a real Jupyter."""

import nbclient
import nbformat
import pytest
from conftest import ROOT

FOLDER = ROOT / "gpt-2-samples"


def kinds(notebook):
    """For each output: the number of its cell, its kind, and where it went."""
    return [
        (number, output.output_type, output.get("name", ""))
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
    ]


@pytest.mark.end_to_end
def test_the_notebook_runs_and_its_outputs_are_stored(monkeypatch, tmp_path):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(FOLDER / "gpt2.ipynb", as_version=4)
    stored = kinds(notebook)
    resources = {"metadata": {"path": str(FOLDER)}}
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", coalesce_streams=True, resources=resources
    )
    client.execute()
    assert kinds(notebook) == stored
    assert {output[1:] for output in stored} == {("stream", "stdout"), ("display_data", "")}
