"""download_model.py against a server that drops, stalls, lies and refuses."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from unittest import mock

import misbehaving_server as bad
import pytest
from conftest import ROOT, shared
from misbehaving_server import MisbehavingServer

import download_model
from gpt2.command_line import run as run_script
from gpt2.download import check, fetch, released_files
from gpt2.download.folder import SUMS
from gpt2.download.released_files import DATA, FILES, INDEX, META, ExpectedFile

# A release of seven small files.
TOY = {
    "checkpoint": b'model_checkpoint_path: "model.ckpt"\n',
    "encoder.json": json.dumps({str(i): i for i in range(2000)}).encode(),
    "hparams.json": b'{"n_vocab": 2000}',
    INDEX: b"\0" * 300,
    META: b"\n" + bytes(3000),
    "vocab.bpe": "#version: 0.2\nĠ t\n".encode() * 100,
    DATA: bytes(i * i % 251 for i in range(50000)),
}
WEIGHTS, MERGES = f"/124M/{DATA}", "/124M/vocab.bpe"


@pytest.fixture(autouse=True)
def released(monkeypatch):
    """The toy release is what was published as 124M, and nothing is known of others."""
    files = {name: ExpectedFile(len(b), hashlib.sha256(b).hexdigest()) for name, b in TOY.items()}
    monkeypatch.setattr(released_files, "RELEASED", {"124M": files})
    for name in ("GPT2_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    files = {f"/{model}/{name}": body for model in ("124M", "lab") for name, body in TOY.items()}
    with MisbehavingServer(files) as server:
        yield server


@pytest.fixture
def no_tensors(monkeypatch):
    """The tensors of a model without published hashes are not checked, which takes long."""
    monkeypatch.setattr(check, "tensor_problem", lambda data: "")


@pytest.fixture
def all_but(tmp_path):
    """Puts all files of 124M but one in place, so that only that one is fetched."""

    def put(name):
        (tmp_path / "124M").mkdir(exist_ok=True)
        for other in set(FILES) - {name}:
            (tmp_path / "124M" / other).write_bytes(TOY[other])
        return tmp_path / "124M" / name

    return put


def flags(server, models_dir, timeout=30):
    """Options for a server, with waits too short to notice."""
    url = getattr(server, "url", server)
    options = {"base_url": url, "models_dir": models_dir, "retry_wait": 0.001, "timeout": timeout}
    return [f"--{name}={value}" for name, value in options.items()]


@pytest.fixture
def run(run_here, tmp_path):
    """Runs download_model.py; its status and what it printed."""

    def run(server, *arguments, timeout=30):
        command = ["download_model.py", *arguments, *flags(server, tmp_path, timeout)]
        result = run_here(lambda: run_script(download_model.download_models), *command)
        assert "Traceback" not in result.stderr
        assert all(c.isprintable() or c == "\n" for c in result.stderr)
        errors = [line for line in result.stderr.splitlines() if line.startswith(command[0])]
        assert len(errors) == (result.returncode in (1, 2) and "--verify" not in arguments)
        return result

    return run


# What arrives


@pytest.mark.parametrize("asked, served", [("117M", "124M"), ("124M", "117M")])
def test_files_arrive_in_the_folder_of_the_name_asked_for(run, tmp_path, asked, served):
    with MisbehavingServer({f"/{served}/{name}": body for name, body in TOY.items()}) as server:
        assert run(server, asked).returncode == 0
        requests = len(server.requests)
        again = run(server, asked)
        assert again.stderr.count("already complete") == len(FILES)
        assert len(server.requests) == requests
    sums = "".join(f"{hashlib.sha256(TOY[n]).hexdigest()}  {n}\n" for n in FILES).encode()
    found = {path.name: path.read_bytes() for path in (tmp_path / asked).iterdir()}
    assert found == TOY | {SUMS: sums}


def test_several_names_and_a_server_from_the_environment(server, run_here, tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2_BASE_URL", server.url + "/")
    command = ["download_model.py", "117M", "124M", f"--models_dir={tmp_path}"]
    result = run_here(lambda: run_script(download_model.download_models), *command)
    assert result.returncode == 0 and not result.stdout
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        f"{model}/{name}" for model in ("117M", "124M") for name in FILES
    ]


def test_the_real_table_agrees_with_the_release(monkeypatch):
    monkeypatch.undo()
    gpt2 = shared("gpt2")
    for name in sorted(set(FILES) - {DATA}):
        body, known = (gpt2 / name).read_bytes(), released_files.released_file("117M", name)
        assert (known.size, known.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert released_files.released_file("762M", DATA).size_error(210)
    assert not released_files.released_file("762M", DATA).size_error(3096120320 + 5)


# Interruptions


@pytest.mark.parametrize("drops", [[49999], [0, 20000, 0, 5]])
def test_no_byte_arrives_twice_wherever_the_connection_drops(server, run, all_but, drops):
    data = all_but(DATA)
    server.faults[WEIGHTS] = [bad.drop(count) for count in drops]
    assert run(server, "124M").returncode == 0
    assert data.read_bytes() == TOY[DATA]
    assert server.sent[WEIGHTS] == len(TOY[DATA])


def test_tries_end_after_growing_waits_but_progress_earns_new_ones(
    server, run, all_but, monkeypatch
):
    waits = []
    monkeypatch.setattr(fetch.time, "sleep", waits.append)
    server.always[WEIGHTS] = bad.drop(10)
    part = all_but(DATA).with_name(f"part.{DATA}")
    assert "after 60 bytes; check" in run(server, "124M").stderr
    assert waits == [0.001 * 2**i for i in range(fetch.RETRIES)]
    assert part.read_bytes() == TOY[DATA][:60]
    monkeypatch.setattr(fetch, "READ_SIZE", 1000)
    server.always[WEIGHTS] = bad.drop(2500)
    assert run(server, "124M").returncode == 0


def test_killed_run_resumes_where_it_was(server, run, tmp_path, no_tensors):
    resume, part, path = threading.Event(), tmp_path / "lab" / f"part.{DATA}", f"/lab/{DATA}"
    server.faults[path] = [bad.stall(5000, resume)]
    command = [sys.executable, str(ROOT / "download_model.py"), "lab", *flags(server, tmp_path)]
    process = subprocess.Popen(command, stdout=-1, stderr=-1)
    while not (part.exists() and part.stat().st_size == 5000):
        assert process.poll() is None
        time.sleep(0.01)
    second = run(server, "lab")  # one run at a time
    assert second.returncode == 2 and "another run is writing" in second.stderr
    process.kill()
    process.communicate()
    resume.set()
    assert not (tmp_path / "lab" / DATA).exists()
    assert run(server, "lab").returncode == 0
    ranges = [headers.get("Range") for name, headers in server.requests if name == path]
    assert ranges == [None, "bytes=5000-"]
    assert (tmp_path / "lab" / DATA).read_bytes() == TOY[DATA]


def test_ctrl_c_keeps_what_arrived(server, run, all_but, monkeypatch):
    monkeypatch.setattr(fetch.time, "sleep", mock.Mock(side_effect=KeyboardInterrupt))
    server.faults[WEIGHTS] = [bad.drop(3000)]
    part = all_but(DATA).with_name(f"part.{DATA}")
    result = run(server, "124M")
    assert result.returncode == 130 and "stopped; run the same command again" in result.stderr
    assert part.stat().st_size == 3000


@pytest.mark.parametrize(
    "size, ranges",
    [
        (50000, []),  # complete when the run was killed
        (60000, ["bytes=60000-", None]),
    ],
)
def test_complete_part_is_used_and_one_that_is_too_long_is_not(server, run, all_but, size, ranges):
    data = all_but(DATA)
    data.with_name(f"part.{DATA}").write_bytes(TOY[DATA].ljust(size))
    assert run(server, "124M").returncode == 0
    assert data.read_bytes() == TOY[DATA]
    assert [headers.get("Range") for _, headers in server.requests] == ranges


@pytest.mark.parametrize(
    "model, name, resumes",
    [("124M", META, True), ("lab", DATA, True), ("lab", META, False)],
)
def test_file_that_changed_is_never_mixed_with_the_old_one(
    server, run, tmp_path, monkeypatch, model, name, resumes
):
    """A hash or the tensors show a mixture, or else the file starts over."""
    monkeypatch.setattr(
        check, "tensor_problem", lambda data: "" if data.read_bytes() == TOY[DATA] else "differs"
    )
    path = f"/{model}/{name}"
    server.files[path] = b"\1" * len(TOY[name])
    server.always[path] = bad.drop(100)
    assert run(server, model).returncode == 1
    server.files[path] = TOY[name]
    server.always.clear()
    server.requests.clear()
    assert run(server, model).returncode == 0
    assert (tmp_path / model / name).read_bytes() == TOY[name]
    ranges = [headers.get("Range") for asked, headers in server.requests if asked == path]
    assert ranges == (["bytes=600-", None] if resumes else [None])


# Servers, networks and disks that fail


@pytest.mark.parametrize(
    "fault, parts, tries",
    [
        (bad.status(404), ["404", "--list"], 2),  # also under the other name
        (bad.status(503), ["503", "again"], 6),
        (bad.status(503, {"Retry-After": "3600"}), ["503", "wait 3600 s", "again"], 1),
        (bad.status(200, {}, b"<html><body>Sign in</body></html>"), ["web page", "browser"], 1),
        (bad.status(200, {}, b"some other file"), ["has 15 bytes instead of 1900"], 1),
        (bad.status(200, {}, bytes(1900)), ["SHA-256"], 1),
        (bad.raw(b"\x1b]0;title\x07 is no HTTP\r\n\r\n"), ["the download failed"], 6),
        (bad.raw(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10000), ["instead of 1900"], 1),
    ],
)
def test_failure_is_reported_in_one_line(server, run, all_but, fault, parts, tries):
    path = all_but("vocab.bpe")
    server.always |= {MERGES: fault, "/117M/vocab.bpe": fault}
    result = run(server, "124M")
    line = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and len(line) < 1000
    assert all(part in line for part in [server.url, "M/vocab.bpe: ", *parts])
    assert tries == len(server.requests)
    assert not path.exists()


def test_silence_is_an_interruption_and_a_server_may_ask_for_time(
    server, run, all_but, monkeypatch
):
    waits, resume = [], threading.Event()
    monkeypatch.setattr(fetch.time, "sleep", waits.append)
    later = bad.status(503, {"Retry-After": "7"})
    server.faults[MERGES] = [later, bad.stall(10, resume), bad.status(500)]
    all_but("vocab.bpe")
    result = run(server, "124M", timeout=0.1)
    resume.set()
    assert result.returncode == 0 and "timed out), after 10 bytes; next try" in result.stderr
    assert waits == [7, 0.002, 0.004]


def test_reply_that_is_not_the_rest_is_not_appended(server, run, all_but):
    path, body = all_but("vocab.bpe"), TOY["vocab.bpe"]
    path.write_bytes(b"my own")
    server.faults[MERGES] = [bad.drop(500), bad.status(200, {}, b"<html>Sorry")]
    assert "web page" in run(server, "124M").stderr
    assert path.read_bytes() == b"my own"
    server.faults[MERGES] = [bad.status(206, {"Content-Range": "bytes 499-1899/1900"}, body[500:])]
    assert run(server, "124M").returncode == 0
    assert path.read_bytes() == body
    ranges = [headers.get("Range") for _, headers in server.requests]
    assert ranges == [None, "bytes=500-", "bytes=500-", None]


def test_certificates(run, all_but, tmp_path_factory, monkeypatch):
    if not shutil.which("openssl"):
        pytest.skip("openssl is needed to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    command += " -addext subjectAltName=IP:127.0.0.1 -out cert.pem -keyout key.pem"
    subprocess.run(command.split(), cwd=path.parent, check=True, capture_output=True)
    path.write_bytes(b"".join((path.parent / f"{n}.pem").read_bytes() for n in ("key", "cert")))
    all_but("vocab.bpe")
    with MisbehavingServer({MERGES: TOY["vocab.bpe"]}, path) as server:
        assert "certificate is not trusted" in run(server, "124M").stderr
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path) + ".missing")
        err = run(server, "124M").stderr
        assert "REQUESTS_CA_BUNDLE must be a file" in err and ".missing" in err
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
        assert run(server, "124M").returncode == 0


def test_proxy_from_the_environment(server, run, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    assert run("http://models.invalid", "117M").returncode == 0
    assert server.requests[0][0] == "http://models.invalid/124M/checkpoint"
    monkeypatch.setattr(fetch.time, "sleep", lambda wait: pytest.fail("no wait helps"))
    monkeypatch.setenv("http_proxy", "http://[::1")
    assert "HTTPS_PROXY" in run("http://models.invalid", "124M").stderr


def test_passwords_are_sent_only_where_asked_and_never_shown(server, run, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert run(f"{server.url}/nothing", "124M").returncode == 1
    result = run(server.url.replace("//", "//you:hidden@") + "/nothing", "124M")
    assert "404" in result.stderr and "hidden" not in result.stderr
    assert [headers.get("Authorization") for _, headers in server.requests] == [
        *[None, None], *["Basic eW91OmhpZGRlbg=="] * 2
    ]  # fmt: skip


def test_place_that_cannot_be_written_is_named(server, run, tmp_path, monkeypatch):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(fetch, "receive", mock.Mock(side_effect=full))
    assert "No space left" in run(server, "117M").stderr
    (tmp_path / "124M").write_text("in the way", encoding="utf-8")
    result = run(server, "124M")
    assert result.returncode == 1 and "cannot be saved" in result.stderr
    assert "--models_dir" in result.stderr


@pytest.mark.parametrize("ranges", [True, False])
def test_bar_is_right_after_a_resume(server, run, all_but, monkeypatch, ranges):
    server.always[WEIGHTS] = bad.drop(5000)
    data, bars = all_but(DATA), []
    assert run(server, "124M").returncode == 1  # 30000 of 50000 bytes arrived
    server.always.clear()
    server.ranges = ranges
    monkeypatch.setattr(fetch, "progress", lambda *a: bars.append(check.progress(*a)) or bars[0])
    assert run(server, "124M").returncode == 0 and data.read_bytes() == TOY[DATA]
    assert (bars[0].initial, bars[0].total) == (30000 if ranges else 0, 50000)
    assert server.sent[WEIGHTS] == (50000 if ranges else 80000)


# What is here already


@pytest.mark.parametrize("model", ["124M", "lab"])
def test_damaged_file_is_fetched_again(server, run, tmp_path, model, no_tensors):
    """By the published hash, or by that of what arrived."""
    assert run(server, model).returncode == 0
    path = tmp_path / model / "vocab.bpe"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    server.requests.clear()
    verified = run(server, "--verify", model)
    assert verified.returncode == 1 and not server.requests
    assert f"{model}/vocab.bpe: has " in verified.stdout
    assert verified.stdout.count(": complete") == len(FILES) - 1
    assert run(server, model).returncode == 0
    assert [path for path, _ in server.requests] == [f"/{model}/vocab.bpe"]
    assert run(server, "--verify").returncode == 0


@pytest.mark.parametrize("prefix", ["model.ckpt", "model-1000"])
def test_checkpoint_of_another_model_is_replaced_only_by_force(server, run, tmp_path, prefix):
    place = tmp_path / "117M"
    place.mkdir()
    (place / "checkpoint").write_text(f'model_checkpoint_path: "{prefix}"\n')
    (place / f"{prefix}.index").write_bytes(b"of my weights")
    result = run(server, "117M")
    assert result.returncode == 1 and f"({prefix})" in result.stderr and "--force" in result.stderr
    assert (place / f"{prefix}.index").read_bytes() == b"of my weights"
    assert prefix in (place / "checkpoint").read_text() and not server.requests
    assert run(server, "117M", "--force").returncode == 0
    assert (place / DATA).read_bytes() == TOY[DATA]


def test_list_shows_sizes_and_what_is_here(server, run, monkeypatch):
    assert run(server, "117M").returncode == 0
    monkeypatch.setattr(check, "file_hash", lambda path: pytest.fail("slow"))
    lines = {line.split()[0]: line for line in run(server, "--list").stdout.splitlines()}
    assert f"{sum(map(len, TOY.values())) / 1000:.1f}kB" in lines["117M"]
    assert lines["117M"].endswith("complete") and lines["345M"].endswith("0 of 7 files")
    assert list(lines)[1:] == list(released_files.MODELS)


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["744M"], ["744M", "117M", "1558M"]),
        (["117M", "--base_url", "ftp://a"], ["--base_url", "http://", "ftp://a"]),
        (["117M", "--timeout", "nan"], ["--timeout"]),
        (["117M", "--source", "x"], ["--source"]),
        (["--base_url", "http://a", "../x"], ["'../x'", "117M"]),
    ],
)
def test_wrong_usage_is_reported_in_one_line(arguments, parts, run_here):
    command = ["download_model.py", *arguments]
    result = run_here(lambda: run_script(download_model.download_models), *command)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2 and all(part in line for part in parts)


# Files of which no hash is published


@pytest.mark.parametrize(
    "name, content, what",
    [
        ("encoder.json", b'{"a": 1', "is damaged"),
        (INDEX, b"", "0 bytes"),
        (META, b" <Error>", "web page"),
    ],
)
def test_unknown_files_are_checked_by_their_content(server, run, tmp_path, name, content, what):
    server.files[f"/lab/{name}"] = content
    result = run(server, "lab")
    assert result.returncode == 1 and f"/lab/{name}: " in result.stderr and what in result.stderr
    assert not (tmp_path / "lab" / name).exists()


@pytest.mark.parametrize("damaged", [False, True])
def test_tensors_are_checked_by_the_checksums_of_the_index(server, run, tmp_path, damaged):
    small = shared("golden/small")
    for name in ("checkpoint", INDEX, DATA):
        server.files[f"/lab/{name}"] = (small / name).read_bytes()
    body = bytearray(server.files[f"/lab/{DATA}"])
    body[len(body) // 2] ^= damaged
    server.files[f"/lab/{DATA}"] = bytes(body)
    result = run(server, "lab")
    assert result.returncode == damaged
    assert ("Checksum does not match" in result.stderr) == damaged
    assert (tmp_path / "lab" / DATA).exists() != damaged
