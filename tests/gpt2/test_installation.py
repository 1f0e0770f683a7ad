"""Outside the virtual environment: one line names what is missing and the Python to use."""

import shlex
import subprocess
import sys

import pytest
from conftest import ROOT

from encoder import get_encoder
from gpt2 import installation
from gpt2.installation import download_command

SCRIPTS = [path for path in ROOT.glob("src/*.py") if "\nif __name__ ==" in path.read_text("utf-8")]


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / "download_model.py"], ids=lambda p: p.name)
def test_a_script_without_its_packages_is_one_line(script):
    # -S leaves the packages out.
    done = subprocess.run([sys.executable, "-S", script], capture_output=True, text=True)
    begin = f"{script.name}: {sys.executable} does not have the package numpy; "
    assert done.stderr.startswith(begin)
    assert done.stderr.count("\n") == 1
    assert (done.stdout, done.returncode) == ("", 2)


def test_an_import_elsewhere_is_an_import_error():
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); import gpt2"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert "\nImportError: " in done.stderr
    assert done.returncode == 1


def test_the_virtual_environment_is_named_where_it_is_there(monkeypatch, tmp_path):
    monkeypatch.setattr(installation, "ROOT", tmp_path)
    monkeypatch.setattr(installation, "NEEDED", ["no_such_package"])
    with pytest.raises(ImportError) as without:
        installation.check_installation()
    assert "`make sample` sets up .venv/bin/python; to install them here: " in str(without.value)
    assert f"-m pip install -r {tmp_path / 'requirements.txt'}" in str(without.value)
    folder = tmp_path / ".venv" / ("Scripts" if sys.platform == "win32" else "bin")
    folder.mkdir(parents=True)
    for name in ("python", "python.exe"):
        (folder / name).touch()
    with pytest.raises(ImportError, match=r"no_such_package; use \S+python(.exe)?$"):
        installation.check_installation()


def test_with_an_old_python_those_that_work_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(installation, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    with pytest.raises(ImportError, match=r"Python 3.10 to 3.13 is needed, and .+ is 3\.9; "):
        installation.check_installation()


def test_hints_name_the_python_that_is_running(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "executable", str(ROOT / ".venv" / "bin" / "python"))
    assert download_command("117M") == ".venv/bin/python download_model.py 117M"
    monkeypatch.chdir(tmp_path)
    words = [str(ROOT / ".venv/bin/python"), str(ROOT / "download_model.py"), "117M"]
    assert shlex.split(download_command("117M")) == words


def test_get_encoder_finds_the_models_of_the_repository_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert get_encoder("1M").encode("To be")
    with pytest.raises(FileNotFoundError, match=r"models/none/encoder\.json"):
        get_encoder("none")
