"""A Python that is too old or too new gets one line with the versions that work."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

VERSIONS = "Python 3.10 to 3.13 is needed, and this is {}"


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 14, 0)])
def test_make_names_the_versions_before_it_installs(tmp_path, version):
    text = ".".join(map(str, version))
    python = tmp_path / "python"
    pretend = f"import sys; sys.version_info, sys.version = {version}, '{text} (main)'"
    python.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "{pretend}; exec(sys.argv[1])" "$2"\n',
        encoding="utf-8",
    )
    python.chmod(0o755)
    for name in ("Makefile", "requirements.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    make = ["make", "sample", f"PYTHON={python}"]
    # Without the variables of `make test`, which would turn "make:" into "make[1]:".
    outer = ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")
    env = {name: value for name, value in os.environ.items() if name not in outer}
    done = subprocess.run(make, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode
    first, *rest = done.stderr.splitlines()
    assert first == VERSIONS.format(text) + "; try: make clean && make PYTHON=python3.12"
    assert all(line.startswith("make: ***") for line in rest)
    assert not (tmp_path / ".venv").exists()
