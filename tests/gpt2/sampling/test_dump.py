"""Dumps by the scripts: the same samples whatever the batch, the shard and the interruptions."""

import json
import random
import re
import signal
import subprocess
import sys
import time

import pexpect
import pytest
from conftest import ROOT
from test_sampling_scripts import CONDITIONAL, UNCONDITIONAL, assert_refused, banners, call

pytestmark = pytest.mark.end_to_end
FLAGS = ["--model_name", "1M", "--device", "cpu", "--seed", 9, "--length", 24, "--top_k", 50]


def dump(path, *flags, script=UNCONDITIONAL):
    """The content of a dump."""
    done = call(script, *FLAGS, "--output", path, *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A dump of 12 samples, made at once."""
    folder = tmp_path_factory.mktemp("whole")
    return dump(folder / "out", "--nsamples", 12, "--batch_size", 12)


def test_a_dump_is_text_under_a_line_that_calls_it_synthetic(whole):
    assert whole.startswith("# Synthetic text, written by a language model: model 1M, weights ")
    assert "seed 9, length 24, temperature 1, top_k 50" in whole.split("\n")[0]
    assert banners(whole) == list(range(1, 13))


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_dump_does_not_depend_on_the_batch_size(tmp_path, whole, batch_size):
    assert dump(tmp_path / "out", "--nsamples", 12, "--batch_size", batch_size) == whole


def test_shards_together_are_the_whole(tmp_path, whole):
    header, *samples = whole.split("=" * 40 + " SAMPLE ")
    for shard in (1, 2):
        part = dump(tmp_path / f"{shard}", "--nsamples", 12, "--shard", f"{shard}/2")
        assert part.split("=" * 40 + " SAMPLE ") == [header, *samples[shard - 1 :: 2]]
    assert len(samples) == 12


def test_a_dump_can_be_made_longer(tmp_path, whole):
    dump(tmp_path / "out", "--nsamples", 5)
    assert dump(tmp_path / "out", "--nsamples", 12) == whole
    assert dump(tmp_path / "out", "--nsamples", 12) == whole


def test_kills_at_random_moments_change_nothing(tmp_path, whole):
    path = tmp_path / "out"
    delays = random.Random(6)
    flags = ["--output", path, "--nsamples", 12, "--batch_size", 1]
    command = [sys.executable, UNCONDITIONAL, *FLAGS, *flags]
    for _ in range(5):
        with subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL) as process:
            while not path.exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(delays.uniform(0, 6))
            process.kill()
    assert dump(path, *flags[2:]) == whole


def test_other_flags_on_the_same_file_are_refused(tmp_path):
    path = tmp_path / "out"
    before = dump(path, "--nsamples", 1)
    for flag, value, message in [
        ("--temperature", 0.5, "temperature 1, not 0.5"),
        ("--format", "jsonl", "format text, not jsonl"),
        ("--shard", "1/2", "shard 1/1, not 1/2"),
    ]:
        done = call(UNCONDITIONAL, *FLAGS, flag, value, "--nsamples", 2, "--output", path)
        assert_refused(done, f"was begun with {message}; use the same flags")
    assert path.read_text(encoding="utf-8") == before


def test_ctrl_c_ends_a_dump_in_order(tmp_path, whole):
    path = tmp_path / "out"
    command = [sys.executable, UNCONDITIONAL, *FLAGS, "--output", path, "--batch_size", 1]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        while not path.exists() or " SAMPLE 2 " not in path.read_text(encoding="utf-8"):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(timeout=600) == 130
    assert "Traceback" not in said
    made = len(banners(path.read_text(encoding="utf-8")))
    assert f"{made} samples, " in said
    assert path.read_text(encoding="utf-8")[:2000] == whole[:2000][: path.stat().st_size]


PROMPTS = ["KING RICHARD III:\nNow", "My lord, ", "è“ a prompt with much more text than the others"]


def test_prompts_of_any_lengths_are_continued_as_if_each_were_alone(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    lines = [json.dumps({"text": text, "id": 5}) for text in PROMPTS]
    prompts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    flags = ["--prompts", prompts, "--format", "jsonl", "--nsamples", 2]
    together = dump(tmp_path / "together", *flags, "--batch_size", 4, script=CONDITIONAL)
    alone = dump(tmp_path / "alone", *flags, "--batch_size", 1, script=CONDITIONAL)
    assert together == alone
    records = [json.loads(line) for line in together.split("\n")[:-1]]
    assert [record["number"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record["prompt"] for record in records] == PROMPTS * 2
    assert all(record["synthetic"] is True for record in records)
    assert {record["settings"]["model"] for record in records} == {"1M"}
    for record in records:
        assert record["ended"] == (len(record["tokens"]) < 24)
        assert "<|endoftext|>" not in record["text"]


def test_prompts_from_a_text_file_and_standard_input(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("First\nline\n\nSecond text\n", encoding="utf-8")
    flags = ["--prompts", prompts, "--separator", r"\n\n"]
    text = dump(tmp_path / "out", *flags, script=CONDITIONAL)
    assert "SAMPLE 1 " + "=" * 40 + "\nFirst\nline" in text
    assert "SAMPLE 2 " + "=" * 40 + "\nSecond text" in text
    done = call(CONDITIONAL, *FLAGS, "--prompts", "-", input="First\nSecond text\n")
    assert "SAMPLE 2 " + "=" * 40 + "\nSecond text" in done.stdout


@pytest.mark.parametrize(
    ("name", "content", "flags", "message"),
    [
        ("none", None, [], "none: No such file"),
        ("empty", "", [], "holds no text to continue"),
        ("a.jsonl", '{"text": "x"}\n{"words": 1}\n', [], "a.jsonl, line 2: expected a JSON object"),
        ("a.txt", "word " * 200, [], "the prompt is too long"),
        ("a.txt", "x", ["--separator", ""], "separator must be some text"),
        ("a.txt", "x", ["--format", "xml"], "format must be one of text, jsonl, got xml"),
        (
            "a.txt",
            "x",
            ["--shard", "3/2"],
            "shard must be i/n, with i from 1 to n and n below 10**9",
        ),
        ("a.txt", "x", ["--shard", f"1/{10**20}"], "shard must be i/n, with i from 1 to n and n"),
        ("a.txt", "x", ["--device", f"gpu:{10**20}"], "device must be auto, cpu, gpu or gpu:N"),
        ("a.txt", "x", ["--batch_size", 10**30], "--batch_size must be from -2**31 to 2**31 - 1"),
        ("a.txt", "x", ["--device", "tpu"], "device must be auto, cpu, gpu or gpu:N"),
        ("a.txt", "x", ["--output", ""], "--output must be the name of a file, got ''"),
        ("a.txt", "x", ["--output", "."], "--output must be the name of a file, got '.'"),
        ("a.txt", "x", ["--output", "/"], "--output must be the name of a file, got '/'"),
        ("a.txt", "x", ["--output", "nowhere/out"], "no folder nowhere to write out in"),
    ],
)
def test_wrong_prompts_and_flags_are_one_line(tmp_path, name, content, flags, message):
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    done = call(CONDITIONAL, "--model_name", "1M", "--prompts", tmp_path / name, *flags)
    assert_refused(done, message)


def test_prompts_are_needed():
    assert_refused(call(CONDITIONAL), "--prompts is needed")


def test_a_gpu_that_is_not_there_is_refused_with_the_reason():
    done = call(UNCONDITIONAL, "--device", "gpu:7", "--nsamples", 1, "--model_name", "1M")
    assert_refused(done, "device must be one that TensorFlow sees: ")


def test_more_samples_than_the_memory_holds_are_one_line(tmp_path):
    flags = ["--nsamples", 1, "--model_name", "1M", "--batch_size", 10**9]
    done = call(UNCONDITIONAL, "--device", "cpu", *flags)
    assert_refused(done, "out of memory with 1000000000 samples at a time; try a smaller --b")


def test_a_terminal_sees_how_far_a_dump_is_and_each_sample_below_it():
    command = [str(UNCONDITIONAL), *FLAGS, "--nsamples", 8, "--batch_size", 4, "--length", 200]
    child = pexpect.spawn(sys.executable, list(map(str, command)), encoding="utf-8", timeout=600)
    child.expect(pexpect.EOF)
    assert re.search(
        r" 50%\|.*\| 800/1.60k \[00:\d\d<00:\d\d, .*token/s, samples=4\]", child.before
    )
    begin = child.before.index("=" * 40 + " SAMPLE 5 ")
    assert child.before[begin - 1] == "\r"  # the bar is wiped away


def test_stop_at_end_cuts_where_the_text_ends(tmp_path):
    flags = ["--nsamples", 6, "--length", 250, "--format", "jsonl"]
    cut, uncut = (
        [json.loads(line) for line in dump(tmp_path / name, *flags, *more).split("\n")[:-1]]
        for name, more in [("cut", ["--stop_at_end"]), ("uncut", [])]
    )
    end = json.loads((ROOT / "models/1M/encoder.json").read_text(encoding="utf-8"))["<|endoftext|>"]
    assert any(record["ended"] for record in cut)
    for short, long in zip(cut, uncut, strict=True):
        tokens = long["tokens"]
        assert short["tokens"] == (tokens[: tokens.index(end)] if end in tokens else tokens)
        assert short["ended"] == long["ended"] == (end in tokens)
