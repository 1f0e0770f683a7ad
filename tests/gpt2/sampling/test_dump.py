"""Dumps: the same samples whatever the batch, the shard and the interruptions."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pexpect
import pytest
from conftest import ROOT
from fake_model import FakeModel
from test_sampling_scripts import CONDITIONAL, UNCONDITIONAL, assert_refused, banners

from gpt2.language_model import LanguageModel
from gpt2.sampling.dump import dump
from gpt2.sampling.prompts import read_prompts
from user_error import UserError

pytestmark = pytest.mark.end_to_end
FLAGS = ["--model_name", "1M", "--device", "cpu", "--seed", 9]
FAKE = [sys.executable, str(ROOT / "tests" / "helpers" / "fake_model.py")]  # no TensorFlow to load
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}


@pytest.fixture(scope="module")
def model():
    """A model that all dumps are made with, so that each batch size is compiled once."""
    with LanguageModel(model_name="1M", device="cpu", seed=9, length=24, top_k=50) as model:
        yield model


def write(model, path, nsamples, batch_size=16, **options):
    """The content of a dump; 16 samples side by side are not compiled."""
    model.batch_size = batch_size
    dump(model, output=str(path), nsamples=nsamples, **options)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """A dump of 12 samples, made at once."""
    return write(model, tmp_path_factory.mktemp("whole") / "out", 12)


def test_a_dump_is_text_under_a_line_that_calls_it_synthetic(whole):
    assert whole.startswith("# Synthetic text, written by a language model: model 1M, fingerprint ")
    assert "seed 9, length 24, temperature 1, top_k 50" in whole.split("\n")[0]
    assert banners(whole) == list(range(1, 13))


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_dump_does_not_depend_on_the_batch_size(tmp_path, model, whole, batch_size):
    assert write(model, tmp_path / "out", 12, batch_size) == whole


def test_shards_together_are_the_whole(tmp_path, model, whole):
    header, *samples = whole.split("=" * 40 + " SAMPLE ")
    for shard in (1, 2):
        part = write(model, tmp_path / f"{shard}", 12, shard=f"{shard}/2")
        assert part.split("=" * 40 + " SAMPLE ") == [header, *samples[shard - 1 :: 2]]
    assert len(samples) == 12


def test_a_dump_can_be_made_longer(tmp_path, model, whole):
    write(model, tmp_path / "out", 5)
    assert write(model, tmp_path / "out", 12) == whole
    assert write(model, tmp_path / "out", 12) == whole


def test_a_dump_without_a_seed_continues_with_the_one_it_began_with(tmp_path, model, whole):
    write(model, tmp_path / "out", 5)
    model.change(seed=None)
    assert write(model, tmp_path / "out", 12) == whole


def test_a_second_run_is_refused_and_an_output_that_is_removed_ends_the_first(tmp_path, call_here):
    path, flags = tmp_path / "out", ["--batch_size", 1, "--output", tmp_path / "out"]
    command = [*FAKE, "generate_unconditional_samples", *map(str, [*FLAGS, *flags])]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as first:
        while not path.exists() or " SAMPLE 2 " not in path.read_text(encoding="utf-8"):
            time.sleep(0.01)
        second = call_here(UNCONDITIONAL, *FLAGS, *flags, model=FakeModel)
        assert_refused(second, f"another run is writing to {path}; wait until it ends")
        path.unlink()
        *_, last = first.stderr.read().splitlines()
        assert first.wait() == 1
    assert f"{path}: was moved, removed or changed during the run, after " in last
    assert [file.name for file in tmp_path.iterdir()] == ["out.progress"]


def test_other_flags_on_the_same_file_are_refused(tmp_path, model):
    path = tmp_path / "out"
    before = write(model, path, 1)
    for flags, message in [
        ({"format": "jsonl"}, "format text, not jsonl"),
        ({"shard": "1/2"}, "shard 1/1, not 1/2"),
        ({"stop": ["END"]}, r"stop None, not \['END'\]"),
    ]:
        with pytest.raises(UserError, match=f"was begun with {message}; use the same flags"):
            write(model, path, 2, **flags)
    assert path.read_text(encoding="utf-8") == before


def test_ctrl_c_ends_a_dump_in_order(tmp_path):
    path = tmp_path / "out"
    command = [*FAKE, "generate_unconditional_samples", *map(str, FLAGS), "--batch_size", "1"]
    command += ["--output", str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=pipe, text=True) as process:
        while not path.exists() or " SAMPLE 2 " not in path.read_text(encoding="utf-8"):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        printed = process.stderr.read()
        assert process.wait(timeout=600) == 130
    assert "Traceback" not in printed
    text = path.read_text(encoding="utf-8")
    made = len(banners(text))
    assert f"{made} samples, " in printed
    assert text.endswith(f" SAMPLE {made} {'=' * 40}\n[9.{made}] <|endoftext|>\n")


PROMPTS = ["KING RICHARD III:\nNow", "My lord, ", "è“ a prompt with much more text than the others"]


def test_prompts_of_any_lengths_are_continued_as_if_each_were_alone(tmp_path, model):
    path = tmp_path / "prompts.jsonl"
    lines = [json.dumps({"text": text, "id": 5}) for text in PROMPTS]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = {"prompts": read_prompts(str(path)), "format": "jsonl", "stop_at_end": True}
    together = write(model, tmp_path / "together", 2, 5, **options)
    alone = write(model, tmp_path / "alone", 2, 1, **options)
    assert together == alone
    records = [json.loads(line) for line in together.split("\n")[:-1]]
    assert [record["number"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record["prompt"] for record in records] == PROMPTS * 2
    assert all(record["synthetic"] is True for record in records)
    assert {record["settings"]["model"] for record in records} == {"1M"}
    for record in records:
        assert record["ended"] == (len(record["tokens"]) < 24)
        assert "<|endoftext|>" not in record["text"]


@pytest.mark.parametrize("shard", ["1/1", "2/3", "4/5"])
def test_sample_i_continues_prompt_i_in_every_shard(tmp_path, call_here, shard):
    (tmp_path / "prompts").write_text("A\nB\nC\n", encoding="utf-8")
    flags = ["--prompts", tmp_path / "prompts", "--format", "jsonl", "--batch_size", 2]
    flags += ["--output", tmp_path / "out", "--shard", shard]
    for n in (1, 20):  # the second run continues the first
        call_here(CONDITIONAL, *FLAGS, *flags, "--nsamples", n, model=FakeModel)
    lines = (tmp_path / "out").read_text(encoding="utf-8").splitlines()
    first, step = map(int, shard.split("/"))
    expected = [(i, "ABC"[(i - 1) % 3]) for i in range(first, 61, step)]
    records = map(json.loads, lines)
    assert [(record["number"], record["prompt"]) for record in records] == expected


@pytest.mark.parametrize(
    ("name", "content", "flags", "message"),
    [
        ("none", None, [], "none: No such file"),
        ("empty", "", [], "empty holds no text to continue"),
        ("a.jsonl", '{"text": "x"}\n{"words": 1}\n', [], "a.jsonl, line 2: expected a JSON object"),
        ("a.jsonl", '\n{"text": "\\ud83d"}\n', [], "a.jsonl, line 2: character 0 of the text"),
        ("a.txt", "word " * 200, [], "a.txt, line 1: the prompt is too long"),
        ("a.txt", "x", ["--separator", ""], "separator must be some text"),
        ("a.txt", "x", ["--format", "xml"], "format must be one of text, jsonl, got xml"),
        ("a.txt", "x", ["--shard", "3/2"], "shard must be i/n, with i from 1 to n and n below 10"),
        ("a.txt", "x", ["--batch_size", 10**30], "--batch_size must be from -2**31 to 2**31 - 1"),
        ("a.txt", "x", ["--device", "tpu"], "device must be auto, cpu, gpu or gpu:N"),
        ("a.txt", "x", ["--output", ""], "--output must be the name of a file, got ''"),
        ("a.txt", "x", ["--output", "nowhere/out"], "there is no folder nowhere to write out in"),
    ],
)
def test_wrong_prompts_and_flags_are_one_line(tmp_path, call_here, name, content, flags, message):
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    done = call_here(CONDITIONAL, "--model_name", "1M", "--prompts", tmp_path / name, *flags)
    assert_refused(done, message)


def test_a_gpu_that_is_not_there_is_refused_with_the_reason(call_here):
    done = call_here(UNCONDITIONAL, "--device", "gpu:7", "--nsamples", 1, "--model_name", "1M")
    assert_refused(done, "device must be one that TensorFlow sees: ")


def test_a_terminal_sees_how_far_a_dump_is(tmp_path):
    command = [*FAKE, "generate_unconditional_samples", *FLAGS, "--length", 200]
    command += ["--nsamples", 8, "--batch_size", 4, "--output", tmp_path / "out"]
    command = shlex.join(map(str, command))
    shown = pexpect.run(command, encoding="utf-8", timeout=600, env=ENVIRONMENT)
    assert re.search(r" \d+%\|.*\| .*token/s, samples=4\]", shown)


def test_a_terminal_shows_text_as_it_is_made_and_ctrl_c_leaves_it(tmp_path):
    prompts = tmp_path / "prompts"
    prompts.write_text("endless\nnever\n", encoding="utf-8")
    flags = ["generate_conditional_samples", *FLAGS, "--prompts", prompts]
    command, options = [*FAKE, *map(str, flags)], {"encoding": "utf-8", "timeout": 600}
    child = pexpect.spawn(command[0], command[1:], env=ENVIRONMENT, **options)
    child.expect_exact(" more more")
    before = child.before
    child.sendintr()
    child.expect(pexpect.EOF)
    assert banners(before) == [1]
    assert "endless[9.1] endless" in before
    after = re.sub(r"\^C|\r", "", child.before)
    assert re.fullmatch(r"( more)*\n0 samples, 0 tokens in .*; seed 9\n", after)


def test_stop_at_end_cuts_where_the_text_ends(tmp_path, model):
    model.change(length=250)
    texts = [
        write(model, tmp_path / str(stop), 6, format="jsonl", stop_at_end=stop)
        for stop in (True, False)
    ]
    model.change(length=24)
    cut, uncut = ([json.loads(line) for line in text.split("\n")[:-1]] for text in texts)
    end = model.end_of_text
    assert any(record["ended"] for record in cut)
    for short, long in zip(cut, uncut, strict=True):
        tokens = long["tokens"]
        assert short["tokens"] == (tokens[: tokens.index(end)] if end in tokens else tokens)
        assert short["ended"] == long["ended"] == (end in tokens)
