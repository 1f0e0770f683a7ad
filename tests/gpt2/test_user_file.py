"""Files of users are opened only if reading them ends."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from gpt2.user_file import expand, open_file, read_text


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "/dev/full"])
def test_pipes_and_devices_are_refused_before_they_are_opened(tmp_path, name):
    path = tmp_path / name
    if name == "pipe":
        os.mkfifo(path)
    with pytest.raises(OSError) as caught:
        open_file(path, pipes=True)
    assert caught.value.strerror == "a pipe or a device, not a file"


def test_a_pipe_that_the_shell_opened_is_read_where_it_may_be():
    script = "from gpt2.user_file import *; print(open_file('/dev/stdin', pipes=True).read())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=b"text",
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=True,
    )
    assert done.stdout.strip() == b"b'text'"


@pytest.mark.parametrize("name", ["nothing", "", ".", "a" * 5000, "\0"])
def test_what_is_no_file_is_an_error_with_a_reason(tmp_path, name):
    with pytest.raises(OSError) as caught:
        open_file(tmp_path / name)
    assert caught.value.strerror


def test_a_byte_order_mark_is_dropped(tmp_path):
    (tmp_path / "text").write_bytes("\ufeffa\ufeff\r\n".encode())
    assert read_text(tmp_path / "text") == "a\ufeff\r\n"


def test_a_path_of_a_user_who_is_not_there_stays_as_it_is(monkeypatch):
    monkeypatch.setenv("PLACE", "here")
    assert str(expand("~nobody-here/$PLACE/$NONE")) == "~nobody-here/here/$NONE"
