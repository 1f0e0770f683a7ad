"""One run at a time writes a file, whatever became of the run before."""

import errno
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from gpt2.file_lock import write_lock
from user_error import UserError

HOLDER = """
import pathlib, sys
from gpt2.file_lock import write_lock
with write_lock(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(("folder", "lock"), [(False, "out.lock"), (True, "out/.lock")])
def test_one_process_at_a_time_writes_until_it_ends_or_is_killed(tmp_path, folder, lock):
    path, pipe = tmp_path / "out", subprocess.PIPE
    if folder:
        path.mkdir()
    command, environment = [sys.executable, "-c", HOLDER, path], {"PYTHONPATH": str(ROOT / "src")}
    for end in (lambda other: other.stdin.close(), lambda other: other.kill()):
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment) as other:
            assert other.stdout.readline() == b"locked\n"
            with pytest.raises(UserError, match=f"^another run is writing to {path}; wait until"):
                write_lock(path).__enter__()
            end(other)
        with write_lock(path):
            assert (tmp_path / lock).exists()
        assert not (tmp_path / lock).exists()


def test_a_disk_that_has_no_locks_is_written_without_one(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with write_lock(tmp_path / "out"), write_lock(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []
