"""Files of samples: after any interruption they hold whole samples, each of them once."""

import contextlib
import io
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from conftest import ROOT
from sample_writer import LAYOUT, SETTINGS, sample

from gpt2.sampling.sample_file import FORMATS, Output, Stream, read_record
from user_error import UserError

WRITER = [sys.executable, str(ROOT / "tests" / "helpers" / "sample_writer.py")]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}


def write(path, format, *numbers):
    """One run that adds samples; how many there were before."""
    with contextlib.closing(Output(path, FORMATS[format], SETTINGS, LAYOUT)) as output:
        output.write([sample(number) for number in numbers])
        return output.done - len(numbers)


def expected(format, numbers):
    parts = [FORMATS[format].sample(sample(number), SETTINGS) for number in numbers]
    return (FORMATS[format].header(SETTINGS) + "".join(parts)).encode("utf-8")


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_in_two_runs_is_as_in_one(tmp_path, format):
    path = tmp_path / "out"
    assert write(path, format, 1, 2) == 0
    assert write(path, format, 3) == 2
    assert path.read_bytes() == expected(format, [1, 2, 3])


def test_json_lines_hold_all_that_is_known_of_a_sample(tmp_path):
    write(tmp_path / "out", "jsonl", 1, 2)
    lines = (tmp_path / "out").read_text(encoding="utf-8").split("\n")
    assert json.loads(lines[1]) == {
        "synthetic": True,
        "number": 2,
        "prompt": None,
        "tokens": [2, 7],
        "text": "text 2\nè“xx",
        "ended": True,
        "settings": SETTINGS,
    }
    assert lines[2:] == [""]


def test_a_torn_end_is_cut_off(tmp_path):
    path = tmp_path / "out"
    write(path, "text", 1)
    with path.open("ab") as file:
        file.write(b"=== half a sam")
    write(path, "text", 2)
    assert path.read_bytes() == expected("text", [1, 2])


def test_what_ctrl_c_tears_is_cut_off(tmp_path, monkeypatch):
    def interrupt(file):
        raise KeyboardInterrupt

    path = tmp_path / "out"
    with contextlib.closing(Output(path, FORMATS["text"], SETTINGS, LAYOUT)) as output:
        output.write([sample(1)])
        monkeypatch.setattr("os.fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            output.write([sample(2)])
    assert path.read_bytes() == expected("text", [1])


@pytest.mark.parametrize(
    "change", [lambda path: path.rename(f"{path}.old"), lambda path: path.write_bytes(b"")]
)
def test_a_file_that_is_moved_or_changed_is_noticed(tmp_path, change):
    path = tmp_path / "out"
    with contextlib.closing(Output(path, FORMATS["text"], SETTINGS, LAYOUT)) as output:
        output.write([sample(1)])
        change(path)
        with pytest.raises(OSError, match=r"was moved, .* after 1 samples") as raised:
            output.write([sample(2)])
    assert raised.value.filename == str(path)


def test_a_file_of_somebody_else_is_not_touched(tmp_path):
    path = tmp_path / "out"
    path.write_text("a thesis", encoding="utf-8")
    with pytest.raises(UserError, match=r"exists without out\.progress"):
        Output(path, FORMATS["text"], SETTINGS, LAYOUT)
    assert path.read_text(encoding="utf-8") == "a thesis"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_lost_samples_is_refused(tmp_path):
    path = tmp_path / "out"
    write(path, "text", 1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"is shorter than recorded in .*progress"):
        Output(path, FORMATS["text"], SETTINGS, LAYOUT)


@pytest.mark.parametrize(
    "content",
    [
        '{"samples": 1, "byt',
        '{"samples": 1, "bytes": 2, "settings": {}}',
        pytest.param("[" * 100_000, id="nested too deeply"),
    ],
)
def test_a_damaged_record_is_named_and_the_samples_are_kept(tmp_path, content):
    path = tmp_path / "out"
    write(path, "text", 1)
    record = tmp_path / "out.progress"
    record.write_text(content, encoding="utf-8")
    message = rf"^\S+out.progress is damaged; the samples in \S+out are safe: delete {record}"
    with pytest.raises(UserError, match=message):
        Output(path, FORMATS["text"], SETTINGS, LAYOUT)
    assert path.read_bytes() == expected("text", [1])
    assert record.read_text(encoding="utf-8") == content


def test_a_full_disk_leaves_whole_samples_and_the_dump_can_be_continued(tmp_path):
    resource = pytest.importorskip("resource", reason="needs a limit on the size of files")
    path = tmp_path / "out"
    done = subprocess.run([*WRITER, path, "1000"], env=ENVIRONMENT, capture_output=True, text=True)
    number, _, reason = done.stderr.strip().partition(" ")
    assert resource and "the same command continues the dump" in reason
    whole = list(range(1, int(number)))
    assert path.read_bytes() == expected("text", whole)
    write(path, "text", int(number))
    assert path.read_bytes() == expected("text", [*whole, int(number)])


def test_kills_at_random_moments_lose_double_and_tear_nothing(tmp_path):
    path = tmp_path / "out"
    delays = random.Random(5)
    command, pipe = [*WRITER, str(path)], subprocess.PIPE
    for _ in range(10):
        with subprocess.Popen(command, env=ENVIRONMENT, stdout=pipe) as process:
            if delays.random() < 0.8:  # else it may not even have begun
                process.stdout.readline()
            time.sleep(delays.uniform(0, 0.03))
            process.kill()
        if path.exists():
            whole = expected("text", range(1, read_record(path)["samples"] + 1))
            assert path.read_bytes().startswith(whole) or not path.stat().st_size
    subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    assert path.read_bytes() == expected("text", range(1, 41))


@pytest.mark.parametrize("format", FORMATS)
def test_a_stream_that_shows_a_sample_as_it_grows_holds_the_same_in_the_end(format):
    out = Stream(io.StringIO(), FORMATS[format], SETTINGS)
    for first in (1, 3):
        for n in (0, 4, 4, 6):
            out.show(replace(sample(first), text=sample(first).text[:n]))
        assert out.stream.getvalue().endswith("text " + str(first) if format == "text" else "")
        out.write([sample(first), sample(first + 1)])
    out.close()
    assert out.stream.getvalue().encode() == expected(format, [1, 2, 3, 4])
    assert out.done == 4


def test_a_sample_that_is_not_complete_ends_its_line():
    out = Stream(io.StringIO(), FORMATS["text"], SETTINGS)
    out.show(replace(sample(1), prompt="Once", text=" upon"))
    out.close()
    assert out.stream.getvalue().endswith(f" SAMPLE 1 {'=' * 40}\nOnce upon\n")
