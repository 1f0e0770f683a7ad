"""download_model.py against a server that drops, stalls, lies and refuses."""

import hashlib
import io
import itertools
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import misbehaving_server as bad
import pytest
from conftest import ROOT, shared
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from misbehaving_server import MisbehavingServer

import download_model
from gpt2.download import fetch, release
from gpt2.download.release import DATA, FILES, INDEX, META, SUMS, Known
from gpt2.tensor_index import TABLE_END


def small_index(size):
    """The index of a checkpoint with one tensor, of so many bytes (at least 128)."""
    number = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14])
    end = bytes([0, 0, 0, 0, 1, 0, 0, 0])
    block = b"\x00\x00\x02\x08\x01" + b"\x00\x01\x04a\x28" + number + end
    where = b"\x00\x01\x02z" + bytes([0, len(block)]) + end
    footer = bytes([0, 0, len(block) + 5, len(where)]).ljust(40, b"\x00")
    return block + bytes(5) + where + bytes(5) + footer + TABLE_END


# A release of seven small files, under the released names.
TOY = {
    "checkpoint": b'model_checkpoint_path: "model.ckpt"\n',
    "encoder.json": json.dumps({str(i): i for i in range(2000)}).encode(),
    "hparams.json": b'{"n_vocab": 2000}',
    INDEX: small_index(50000),
    META: b"\n" + bytes(3000),
    "vocab.bpe": "#version: 0.2\nĠ t\n".encode() * 100,
    DATA: bytes(i * i % 251 for i in range(50000)),
}
ENCODER = "/lab/encoder.json"
SCRIPT = str(ROOT / "download_model.py")


@pytest.fixture
def released(monkeypatch):
    """The toy release is what was published as 124M, and nothing is known of others."""
    known = {name: Known(len(b), hashlib.sha256(b).hexdigest()) for name, b in TOY.items()}
    monkeypatch.setattr(release, "RELEASED", {"124M": known})


@pytest.fixture
def server(released):
    with MisbehavingServer({f"/124M/{name}": body for name, body in TOY.items()}) as server:
        yield server


@pytest.fixture
def lab():
    """A laboratory's own model, of which the first two files are there."""
    with MisbehavingServer({f"/lab/{name}": TOY[name] for name in FILES[:2]}) as server:
        yield server


@pytest.fixture
def whole(tmp_path):
    """Put all files but one in place, so that only that one is fetched."""

    def put(name):
        (tmp_path / "124M").mkdir(exist_ok=True)
        for other in set(FILES) - {name}:
            (tmp_path / "124M" / other).write_bytes(TOY[other])
        return tmp_path / "124M" / name

    return put


def flags(server, models_dir, timeout="30"):
    """Options for a server, with waits too short to notice."""
    url = getattr(server, "url", server)
    waits = ["--retry_wait", "0.001", "--timeout", timeout]
    return ["--base_url", url, "--models_dir", str(models_dir), *waits]


def run(server, models_dir, *names):
    return download_model.main([*names, *flags(server, models_dir)])


def start(server, models_dir, *names):
    """The script as a user starts it, in a process of its own."""
    command = [sys.executable, SCRIPT, *names, *flags(server, models_dir)]
    return subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=models_dir)


OTHER = (ROOT / "models" / "1M" / INDEX).read_bytes(), (ROOT / "models" / "1M" / DATA).read_bytes()


def put_checkpoint(folder, prefix):
    """Copy a complete checkpoint to a folder; its index and its data file."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{prefix}{end}" for end in (".index", DATA.removeprefix("model.ckpt"))]
    for path, body in zip(paths, OTHER, strict=True):
        path.write_bytes(body)
    return paths


def one_line(capsys, *parts):
    """What the run said last is one line with all `parts`, and no traceback came before."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("download_model.py: ")]
    for part in parts:
        assert part in line
    return line


def until(condition):
    """Wait for something that another process does."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        time.sleep(0.01)


# What comes


@pytest.mark.parametrize("asked, served", [("117M", "124M"), ("124M", "117M"), ("117M", "117M")])
def test_fetches_the_files_into_the_folder_of_the_name_asked_for(released, tmp_path, asked, served):
    with MisbehavingServer({f"/{served}/{name}": body for name, body in TOY.items()}) as server:
        assert run(server, tmp_path, asked) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / asked).iterdir()} == TOY | {
        SUMS: "".join(f"{hashlib.sha256(TOY[n]).hexdigest()}  {n}\n" for n in FILES).encode()
    }
    assert [path.name for path in tmp_path.iterdir()] == [asked]


def test_several_names_in_one_call(server, tmp_path):
    assert run(server, tmp_path, "117M", "124M") == 0
    assert (tmp_path / "117M" / DATA).read_bytes() == (tmp_path / "124M" / DATA).read_bytes()


def test_base_url_comes_from_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2_BASE_URL", server.url + "/")
    assert download_model.main(["117M", "--models_dir", str(tmp_path)]) == 0
    assert (tmp_path / "117M" / DATA).read_bytes() == TOY[DATA]


def test_released_hashes_bind_whatever_the_server(server, tmp_path, capsys):
    server.files[f"/124M/{META}"] = TOY[META][:-1] + b"x"
    assert run(server, tmp_path, "117M") == 1
    one_line(capsys, f"{server.url}/124M/{META}", "SHA-256", hashlib.sha256(TOY[META]).hexdigest())
    assert not [path for path in (tmp_path / "117M").iterdir() if META in path.name]


def test_the_real_table_agrees_with_the_release():
    gpt2 = shared("gpt2")
    for name in sorted(set(FILES) - {DATA}):
        body = (gpt2 / name).read_bytes()
        known = release.published("117M", name)
        assert (known.size, known.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert release.published("345M", DATA).size == 1419292672
    for name in ("encoder.json", "vocab.bpe"):
        assert release.published("1542M", name) == release.published("124M", name)
    assert release.published("762M", DATA).refuses(210)
    assert not release.published("762M", DATA).refuses(3096120320 + 5)


# Interruptions


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(drops=st.lists(st.integers(0, 30000), max_size=5))
def test_resumes_after_drops_at_any_byte_and_fetches_no_byte_twice(server, tmp_path, whole, drops):
    data = whole(DATA)
    data.unlink(missing_ok=True)
    server.sent.clear()
    server.faults[f"/124M/{DATA}"] = [bad.drop(count) for count in drops]
    assert run(server, tmp_path, "124M") == 0
    assert data.read_bytes() == TOY[DATA]
    assert server.sent[f"/124M/{DATA}"] == len(TOY[DATA])


def test_begins_anew_where_the_server_knows_no_ranges(server, tmp_path, whole):
    server.ranges = False
    server.faults[f"/124M/{DATA}"] = [bad.drop(1000), bad.drop(2000)]
    data = whole(DATA)
    assert run(server, tmp_path, "124M") == 0
    assert data.read_bytes() == TOY[DATA]
    assert server.sent[f"/124M/{DATA}"] == 3000 + len(TOY[DATA])


def test_gives_up_after_some_tries_with_growing_waits(server, tmp_path, whole, monkeypatch, capsys):
    waits = []
    monkeypatch.setattr(fetch.time, "sleep", waits.append)
    server.always[f"/124M/{DATA}"] = bad.drop(10)
    whole(DATA)
    assert run(server, tmp_path, "124M") == 1
    one_line(capsys, f"{server.url}/124M/{DATA}", "60 bytes", "again")
    assert waits == [0.001 * 2**i for i in range(fetch.RETRIES)]
    assert (tmp_path / "124M" / f"part.{DATA}").read_bytes() == TOY[DATA][:60]


def test_progress_earns_new_tries(released, tmp_path, whole, monkeypatch):
    monkeypatch.setattr(fetch, "CHUNK", 1000)
    with MisbehavingServer({f"/124M/{DATA}": TOY[DATA]}) as server:
        server.always[f"/124M/{DATA}"] = bad.drop(2500)
        data = whole(DATA)
        assert run(server, tmp_path, "124M") == 0
        assert len(server.requests) == 20 > fetch.RETRIES
    assert data.read_bytes() == TOY[DATA]


def test_killed_run_goes_on_where_it_was(lab, tmp_path):
    goes_on, part = threading.Event(), tmp_path / "lab" / "part.encoder.json"
    lab.faults[ENCODER] = [bad.stall(5000, goes_on)] * 2
    for count in (5000, 10000):  # the second run is killed, too
        process = start(lab, tmp_path, "lab")
        until(lambda count=count: part.exists() and part.stat().st_size == count)
        process.kill()
        process.communicate()
    assert not (tmp_path / "lab" / "encoder.json").exists()
    sent = lab.sent[ENCODER]
    assert run(lab, tmp_path, "lab") == 1  # hparams.json is not there
    goes_on.set()
    assert (sent, lab.sent[ENCODER]) == (10000, len(TOY["encoder.json"]))
    assert (tmp_path / "lab" / "encoder.json").read_bytes() == TOY["encoder.json"]


def test_ctrl_c_is_no_traceback_and_keeps_what_came(server, tmp_path, whole, capsys, monkeypatch):
    def interrupt(wait):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch.time, "sleep", interrupt)
    server.faults[f"/124M/{DATA}"] = [bad.drop(3000)]
    part = whole(DATA).with_name(f"part.{DATA}")
    assert run(server, tmp_path, "124M") == 130
    one_line(capsys, "stopped", "again")
    assert part.stat().st_size == 3000


def test_part_that_was_complete_when_killed_is_not_asked_for_again(server, tmp_path, whole):
    data = whole(DATA)
    data.with_name(f"part.{DATA}").write_bytes(TOY[DATA])
    note = {"size": len(TOY[DATA]), "md5": None, "version": None}
    data.with_name(f"part.{DATA}.json").write_text(json.dumps(note), encoding="utf-8")
    assert run(server, tmp_path, "124M") == 0
    assert data.read_bytes() == TOY[DATA]
    assert not server.requests


def test_part_of_which_nothing_is_known_is_not_continued(server, tmp_path, whole):
    data = whole(DATA)
    data.with_name(f"part.{DATA}").write_bytes(bytes(100))
    assert run(server, tmp_path, "124M") == 0
    assert [headers.get("Range") for _, headers in server.requests] == [None]


def begin_an_older_file(server, tmp_path, model, name):
    """Leave the start of a file on the disk that the server then replaces."""
    path = f"/{model}/{name}"
    server.files |= {path: bytes(len(TOY[name]))}
    server.always[path] = bad.drop(100)
    assert run(server, tmp_path, model) == 1
    server.files[path] = TOY[name]
    server.always.clear()
    server.requests.clear()


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_part_of_an_older_file_is_not_continued(server, tmp_path, knows_if_range, monkeypatch):
    """The versions differ, for no hash of this file is known."""
    monkeypatch.setattr(release, "tensor_problem", lambda data: "")
    server.knows_if_range = knows_if_range
    server.files |= {f"/lab/{name}": body for name, body in TOY.items()}
    begin_an_older_file(server, tmp_path, "lab", META)
    assert run(server, tmp_path, "lab") == 0
    assert (tmp_path / "lab" / META).read_bytes() == TOY[META]
    asked = [path for path, _ in server.requests if path == f"/lab/{META}"]
    assert len(asked) == (1 if knows_if_range else 2)


@pytest.mark.parametrize(
    "headers",
    [{}, {"ETag": 'W/"1"'}, {"ETag": "1"}, {"Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"}],
)
def test_part_without_a_strong_validator_is_not_continued(server, tmp_path, headers, monkeypatch):
    """The file may have changed since, within one second even."""
    monkeypatch.setattr(release, "tensor_problem", lambda data: "")
    server.headers = lambda body: headers
    server.files |= {f"/lab/{name}": body for name, body in TOY.items()}
    begin_an_older_file(server, tmp_path, "lab", META)
    assert run(server, tmp_path, "lab") == 0
    assert (tmp_path / "lab" / META).read_bytes() == TOY[META]
    assert "Range" not in dict(server.requests)[f"/lab/{META}"]


def test_hash_tells_that_pieces_of_two_files_came_and_all_is_fetched_anew(server, tmp_path, whole):
    server.headers = lambda body: {}
    data = whole(DATA)
    begin_an_older_file(server, tmp_path, "124M", DATA)
    assert run(server, tmp_path, "124M") == 0
    assert data.read_bytes() == TOY[DATA]
    assert [headers.get("Range") for _, headers in server.requests] == ["bytes=600-", None]


# Servers and disks that fail


@pytest.mark.parametrize(
    "fault, parts, tries",
    [
        (bad.status(404), ["404", "--list"], 2),  # two: under the other name, too
        (bad.status(403), ["403", "--base_url"], 2),
        (bad.status(401), ["401"], 2),
        (bad.status(500), ["500", "again"], 6),
        (bad.status(503, {"Retry-After": "0"}), ["503", "again"], 6),
        (bad.status(503, {"Retry-After": "3600"}), ["503", "wait 3600 s", "again"], 1),
        (bad.status(200, {}, b"<html><body>Sign in</body></html>"), ["web page", "browser"], 1),
        (bad.status(200, {}, b"\xef\xbb\xbf<?xml version='1.0'?><Error/>"), ["web page"], 1),
        (bad.status(200, {}, b"some other file"), ["has 15 bytes instead of 1900"], 1),
        (bad.status(200), ["has 0 bytes instead of 1900"], 1),
        (bad.status(302, {"Location": "/124M/vocab.bpe"}), ["redirects"], 21),
        (bad.wrong_length(1950), ["has 1950 bytes instead of 1900"], 1),
        (bad.wrong_length(1000), ["has 1000 bytes instead of 1900"], 1),
        (bad.other_content(bytes(1900)), ["SHA-256"], 1),
        (bad.drop(0), ["connection", "again"], 6),
    ],
)  # fmt: skip
def test_failure_is_told_in_one_line(server, tmp_path, whole, capsys, fault, parts, tries):
    path = whole("vocab.bpe")
    assert len(TOY["vocab.bpe"]) == 1900
    server.always["/124M/vocab.bpe"] = fault
    assert run(server, tmp_path, "124M") == 1
    one_line(capsys, f"{server.url}/124M/vocab.bpe", *parts)
    assert len(server.requests) == tries
    assert not path.exists()


def test_stall_is_told_in_one_line(server, tmp_path, whole, capsys):
    whole("vocab.bpe")
    server.always["/124M/vocab.bpe"] = bad.stall(10, goes_on := threading.Event())
    assert download_model.main(["124M", *flags(server, tmp_path, timeout="0.1")]) == 1
    goes_on.set()
    one_line(capsys, f"{server.url}/124M/vocab.bpe", "60 bytes", "timed out", "again")


def test_waits_as_long_as_the_server_asks(server, tmp_path, whole, monkeypatch):
    waits = []
    monkeypatch.setattr(fetch.time, "sleep", waits.append)
    server.faults["/124M/vocab.bpe"] = [bad.status(503, {"Retry-After": "7"}), bad.status(500)]
    whole("vocab.bpe")
    assert run(server, tmp_path, "124M") == 0
    assert waits == [7, 0.002]


def test_follows_a_redirect_but_takes_no_name_from_it(server, tmp_path, whole):
    server.files["/elsewhere/evil.sh"] = TOY["vocab.bpe"]
    there = bad.status(302, {"Location": "/elsewhere/evil.sh"})
    server.always["/124M/vocab.bpe"] = there
    path = whole("vocab.bpe")
    assert run(server, tmp_path, "124M") == 0
    assert sorted(p.name for p in path.parent.iterdir()) == sorted([*FILES, SUMS])


def test_an_error_page_leaves_what_came_before(server, tmp_path, whole, capsys):
    path = whole("vocab.bpe")
    server.faults["/124M/vocab.bpe"] = [bad.drop(500), bad.status(200, {}, b"<html>Sorry")]
    assert run(server, tmp_path, "124M") == 1
    one_line(capsys, "web page")
    assert run(server, tmp_path, "124M") == 0
    assert path.read_bytes() == TOY["vocab.bpe"]
    assert server.sent["/124M/vocab.bpe"] == len(TOY["vocab.bpe"])


def test_no_server(tmp_path, capsys):
    with MisbehavingServer({}) as server:
        url = server.url
    assert run(url, tmp_path, "117M") == 1
    one_line(capsys, f"{url}/124M/checkpoint", "refused", "network")
    assert not list(tmp_path.iterdir())


def test_no_such_host(tmp_path, capsys, monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert run("http://no-such-host.invalid", tmp_path, "117M") == 1
    one_line(capsys, "http://no-such-host.invalid/124M/checkpoint", "not known", "network")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("openssl is needed to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    command += " -addext subjectAltName=IP:127.0.0.1 -out cert.pem -keyout key.pem"
    subprocess.run(command.split(), cwd=path.parent, check=True, capture_output=True)
    path.write_bytes(b"".join((path.parent / f"{n}.pem").read_bytes() for n in ("key", "cert")))
    return path


def test_bad_certificate_is_refused_at_once(certificate, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fetch.time, "sleep", lambda wait: pytest.fail("no wait helps"))
    with MisbehavingServer({}, certificate) as server:
        assert run(server, tmp_path, "117M") == 1
    one_line(capsys, f"{server.url}/124M/checkpoint", "certificate", "REQUESTS_CA_BUNDLE")


def test_certificates_of_the_network_are_accepted(
    released, certificate, tmp_path, whole, monkeypatch
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    path = whole("vocab.bpe")
    files = {"/124M/vocab.bpe": TOY["vocab.bpe"]}
    with MisbehavingServer(files, certificate) as server:
        server.faults["/124M/vocab.bpe"] = [bad.drop(700)]
        assert run(server, tmp_path, "124M") == 0
        assert server.sent["/124M/vocab.bpe"] == len(TOY["vocab.bpe"])
    assert path.read_bytes() == TOY["vocab.bpe"]


def test_proxy_from_the_environment(released, tmp_path, monkeypatch):
    with MisbehavingServer({f"/124M/{name}": body for name, body in TOY.items()}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        assert run("http://models.invalid", tmp_path, "117M") == 0
        assert proxy.requests[0][0] == "http://models.invalid/124M/checkpoint"


def in_namespace(script, *arguments):
    """Run a shell script that may mount, or skip the test where nobody lets us."""
    kind = ["--mount"] if hasattr(os, "geteuid") and os.geteuid() == 0 else ["-rm"]
    command = ["unshare", *kind, "sh", "-ec"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*command, "mount -t tmpfs tmpfs /mnt"], capture_output=True).returncode
    ):
        pytest.skip("mounting a small disk needs root or user namespaces of Linux")
    command += [script, "sh", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_full_disk_is_told_and_what_came_stays(tmp_path):
    body = json.dumps({str(i): i for i in range(20000)}).encode()
    script = """mount -t tmpfs -o size=100k tmpfs "$1"; shift
        "$@" || echo "status $?"
        stat -c %s lab/part.encoder.json
        mount -o remount,size=10m .
        "$@" || sha256sum lab/encoder.json"""
    with MisbehavingServer({"/lab/checkpoint": b"x", "/lab/encoder.json": body}) as server:
        command = [sys.executable, SCRIPT, "lab", *flags(server, ".")]
        script = script.replace("; shift", '; cd "$1"; shift')
        result = in_namespace(script, tmp_path, *command)
        assert server.sent["/lab/encoder.json"] >= len(body)
        ranges = [headers.get("Range") for _, headers in server.requests]
    status, came, digest = result.stdout.splitlines()
    assert (status, digest.split()[0]) == ("status 1", hashlib.sha256(body).hexdigest())
    assert f"bytes={came}-" in ranges and 50_000 < int(came) < 100_000
    line = result.stderr.splitlines()[1]
    assert f"{server.url}/lab" in line
    assert "No space left" in line and "--models_dir" in line
    assert "Traceback" not in result.stderr


def test_read_only_folder_is_told(tmp_path):
    script = 'mount -t tmpfs -o ro tmpfs "$1"; cd "$1"; shift; "$@" || echo "status $?"'
    command = [sys.executable, SCRIPT, "117M", *flags("http://127.0.0.1:1", ".")]
    result = in_namespace(script, tmp_path, *command)
    assert result.stdout == "status 1\n"
    (line,) = result.stderr.splitlines()
    assert "http://127.0.0.1:1/117M" in line and "Read-only" in line and "--models_dir" in line


def test_a_file_where_the_folder_should_be_is_told(server, tmp_path, capsys):
    (tmp_path / "124M").write_text("in the way", encoding="utf-8")
    assert run(server, tmp_path, "124M") == 1
    one_line(capsys, f"{server.url}/124M", "cannot be saved", "--models_dir")


# Servers that are slow, endless or hostile


def raw(text, endless=b""):
    """Send bytes as they are; then `endless` again and again, until the client goes away."""

    def fault(handler, body):
        handler.wfile.write(text)
        while endless:
            handler.wfile.write(endless)

    return fault


def trickle(text, endless):
    """Send `text`, then `endless` byte by byte, with pauses shorter than a timeout."""

    def fault(handler, body):
        handler.wfile.write(text)
        for byte in itertools.cycle(endless):
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.02)

    return fault


OK_HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "fault, part",
    [
        (trickle(OK_HEAD + b"X-Slow: ", b"x"), "no complete reply"),
        (raw(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "no complete reply"),
        (trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "no complete reply"),
        (trickle(b"HTTP/1.1 302 Found\r\n", b"A: b\r\n"), "no complete reply"),
        (trickle(OK_HEAD + b"\r\n", b"x"), "less than 1000 bytes a second"),
        (trickle(OK_HEAD + b"Content-Length: 1900\r\n\r\n", b"x"), "less than 1000 bytes a second"),
        (trickle(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"), "less than 1000 bytes"),
        (raw(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"), "less than 1000"),
    ],
)
def test_server_that_is_too_slow_is_left(server, tmp_path, whole, capsys, fault, part):
    """Though it is never silent for as long as --timeout."""
    whole("vocab.bpe")
    server.always["/124M/vocab.bpe"] = fault
    assert download_model.main(["124M", *flags(server, tmp_path, timeout="0.1")]) == 1
    one_line(capsys, f"{server.url}/124M/vocab.bpe", part, "again")


@pytest.mark.parametrize(
    "head",
    [b"", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 9" + b"9" * 5000 + b"\r\n"],
    ids=["no length", "chunks", "a length of 5001 digits"],
)
@pytest.mark.parametrize("name", ["vocab.bpe", "checkpoint"])
def test_body_without_an_end_is_left_at_the_size_of_the_file(
    lab, tmp_path, capsys, head, name, monkeypatch
):
    """The published size, or else the most that such a file can have."""
    monkeypatch.setitem(release.MOST, "checkpoint", 100_000)
    monkeypatch.setattr(release, "tensor_problem", lambda _: "")  # of the other files; takes long
    model = "124M" if name == "vocab.bpe" else "lab"
    monkeypatch.setitem(release.RELEASED, "124M", {"checkpoint": Known(), name: Known(1900)})
    lab.files |= {f"/124M/{n}": TOY[n] for n in FILES}
    endless = b"2710\r\n" + b"x" * 10000 + b"\r\n" if b"chunked" in head else b"x" * 10000
    lab.always[f"/{model}/{name}"] = raw(OK_HEAD + head + b"\r\n", endless)
    for other in set(FILES) - {name}:
        (tmp_path / model).mkdir(exist_ok=True)
        (tmp_path / model / other).write_bytes(TOY[other])
    assert run(lab, tmp_path, model) == 1
    one_line(
        capsys,
        f"{lab.url}/{model}/{name}",
        "longer than 1900" if name == "vocab.bpe" else "longer than 100000",
    )
    assert not list((tmp_path / model).glob("part.*"))


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 500-1899/\u00b2",
        "bytes 500-1899/" + "9" * 5000,
        "bytes 500-1899/1_900",
        "bytes \u00b2-1/1900",
        "bytes 0-1899/1900",
        "bytes 499-1899/1900",
        "bytes=500-1899/1900",
        "500",
        "",
        "bytes 500-1899/-1",
    ],
)
def test_unusable_content_range_starts_over(server, tmp_path, whole, content_range):
    path = whole("vocab.bpe")
    headers = {"Content-Range": content_range, **server.headers(TOY["vocab.bpe"])}
    reply = bad.status(206, headers, TOY["vocab.bpe"][500:])
    server.faults["/124M/vocab.bpe"] = [bad.drop(500), reply]
    assert run(server, tmp_path, "124M") == 0
    assert path.read_bytes() == TOY["vocab.bpe"]
    ranges = [headers.get("Range") for _, headers in server.requests]
    assert ranges == [None, "bytes=500-", None]


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("7", 7),
        (" 7 ", 7),
        ("9" * 5000, math.inf),
        ("\u00b2", 0),
        ("-1", 0),
        ("1e9", 0),
        ("soon", 0),
        ("", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Fri, 31 Dec 99999 23:59:59 GMT", 0),
        ("Fri, 99 Dec 2030 23:59:59 +9999", 0),
    ],
)
def test_reads_any_retry_after(text, seconds):
    found = fetch.retry_after(text)
    assert found > 10**9 if seconds is None else found == seconds


@pytest.mark.parametrize("text", ["9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_does_not_wait_for_a_server_that_asks_for_years(server, tmp_path, whole, capsys, text):
    whole("vocab.bpe")
    server.always["/124M/vocab.bpe"] = bad.status(503, {"Retry-After": text})
    assert run(server, tmp_path, "124M") == 1
    one_line(capsys, "503", "asks to wait", "again")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "location",
    [
        "http://[",
        "http://[::1",
        "http://",
        "//",
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "data:,x",
        "http://" + "a" * 70 + ".invalid/",
        "http://a:99999999/",
        "http://\u00e9\x80/",
        "http://127.0.0.1:1\x7f/",
    ],
)
def test_redirect_to_nowhere_is_reported_in_one_line(server, tmp_path, whole, capsys, location):
    whole("vocab.bpe")
    server.always["/124M/vocab.bpe"] = bad.status(302, {"Location": location})
    assert run(server, tmp_path, "124M") == 1
    one_line(capsys, f"{server.url}/124M/vocab.bpe")


def test_body_of_a_redirect_is_not_read(server, tmp_path, whole):
    path = whole("vocab.bpe")
    server.files["/there"] = TOY["vocab.bpe"]
    head = b"HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n"
    server.always["/124M/vocab.bpe"] = raw(head, b"x" * 10000)
    assert run(server, tmp_path, "124M") == 0
    assert path.read_bytes() == TOY["vocab.bpe"]


@pytest.mark.parametrize(
    "fault",
    [
        raw(b"HTTP/1.1 404 \x1b[31mred\x9b2J\x07\r\n\r\n"),
        raw(b"\x1b]0;title\x07 is no HTTP\r\n\r\n"),
        bad.status(200, {"Content-MD5": "\x1b[2J"}, TOY["vocab.bpe"]),
        bad.status(302, {"Location": "x:\x1b[2J"}),
    ],
)
def test_escape_sequences_of_a_server_are_escaped(server, tmp_path, whole, capfd, fault):
    whole("vocab.bpe")
    server.always["/124M/vocab.bpe"] = fault
    assert run(server, tmp_path, "124M") == 1
    err = capfd.readouterr().err
    assert "download_model.py: " in err and all(c.isprintable() or c == "\n" for c in err)


def test_an_endless_reason_is_cut(server, tmp_path, whole, capsys):
    whole("vocab.bpe")
    server.always["/124M/vocab.bpe"] = raw(b"HTTP/1.1 404 " + b"x" * 60000 + b"\r\n\r\n")
    assert run(server, tmp_path, "124M") == 1
    assert len(one_line(capsys, "404 xxx")) < 1000


@pytest.mark.parametrize(
    "note",
    [
        "[]",
        "5",
        "null",
        '"x"',
        "{",
        "",
        '{"size": "5"}',
        '{"size": -1}',
        '{"size": true}',
        '{"size": 1e400}',
        '{"version": 5}',
        '{"size": 10, "md5": [], "version": null}',
        '{"other": 1}',
        "[" * 100_000,
        "\ud800",
    ],
)
def test_note_that_is_not_ours_starts_over(server, tmp_path, whole, note):
    path = whole("vocab.bpe")
    path.with_name("part.vocab.bpe").write_bytes(b"old")
    path.with_name("part.vocab.bpe.json").write_bytes(note.encode("utf-8", "surrogatepass"))
    assert run(server, tmp_path, "124M") == 0
    assert path.read_bytes() == TOY["vocab.bpe"]
    assert [headers.get("Range") for _, headers in server.requests] == [None]


@pytest.mark.skipif(sys.platform == "win32", reason="links and FIFOs of POSIX")
@pytest.mark.parametrize("name", ["part.vocab.bpe", "part.vocab.bpe.json", SUMS])
@pytest.mark.parametrize("kind", ["link", "dangling", "fifo"])
def test_links_and_fifos_in_the_way_are_not_written_through(server, tmp_path, whole, name, kind):
    path, precious = whole("vocab.bpe"), tmp_path / "precious"
    note = {"size": len(TOY["vocab.bpe"]), "version": server.headers(TOY["vocab.bpe"])["ETag"]}
    path.with_name("part.vocab.bpe").write_bytes(TOY["vocab.bpe"][:500])
    path.with_name("part.vocab.bpe.json").write_text(json.dumps(note), encoding="utf-8")
    path.with_name(name).unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path.with_name(name))
    else:
        path.with_name(name).symlink_to(precious)
    if kind == "link":
        precious.write_bytes(TOY["vocab.bpe"][:500])
    assert run(server, tmp_path, "124M") == (1 if name == SUMS else 0)
    assert precious.exists() == (kind == "link")
    if kind == "link":
        assert precious.read_bytes() == TOY["vocab.bpe"][:500]
    if name != SUMS:
        assert path.read_bytes() == TOY["vocab.bpe"] and not path.is_symlink()


def test_git_lfs_pointer_is_refused(lab, tmp_path, capsys):
    lab.files["/lab/checkpoint"] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    assert run(lab, tmp_path, "lab") == 1
    one_line(capsys, f"{lab.url}/lab/checkpoint", "Git LFS pointer")


def test_password_in_a_url_is_not_shown(server, tmp_path, capsys):
    url = server.url.replace("//", "//me:secret@") + "/nothing"
    assert run(url, tmp_path, "124M") == 1
    assert "secret" not in one_line(capsys, "404")


# What is here already


def test_whole_files_are_not_fetched_again(server, tmp_path, capsys):
    assert run(server, tmp_path, "117M") == 0
    before = len(server.requests)
    capsys.readouterr()
    assert run(server, tmp_path, "117M") == 0
    assert len(server.requests) == before == len(FILES)
    assert capsys.readouterr().err.count("already complete") == len(FILES)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + b"\xff", lambda b: b""])
@pytest.mark.parametrize("model", ["124M", "lab"])
def test_corrupt_file_is_fetched_anew(server, tmp_path, model, damage, monkeypatch):
    """By the published hash, or by the one that was written down when the file came."""
    monkeypatch.setattr(release, "tensor_problem", lambda data: "")
    server.files |= {f"/lab/{name}": body for name, body in TOY.items()}
    assert run(server, tmp_path, model) == 0
    path = tmp_path / model / "vocab.bpe"
    path.write_bytes(damage(path.read_bytes()))
    server.requests.clear()
    assert run(server, tmp_path, model) == 0
    assert [path for path, _ in server.requests] == [f"/{model}/vocab.bpe"]
    assert path.read_bytes() == TOY["vocab.bpe"]


def test_corrupt_file_stays_until_a_whole_one_is_there(server, tmp_path, whole):
    path = whole("vocab.bpe")
    path.write_bytes(b"my own")
    server.always["/124M/vocab.bpe"] = bad.drop(10)
    assert run(server, tmp_path, "124M") == 1
    assert path.read_bytes() == b"my own"


@pytest.mark.parametrize("prefix", ["model.ckpt", "model-1000"])
def test_complete_checkpoint_of_another_model_is_replaced_only_by_force(
    server, tmp_path, capsys, prefix
):
    """As people put it there whose fine-tuned weights are to be loaded as 117M."""
    folder = tmp_path / "117M"
    paths = put_checkpoint(folder, prefix)
    names = folder / "checkpoint"
    names.write_text(f'model_checkpoint_path: "{prefix}"\n', encoding="utf-8")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert run(server, tmp_path, "117M") == 1
    one_line(capsys, str(folder), "complete checkpoint", prefix, "--force")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not server.requests
    assert run(server, tmp_path, "117M", "--force") == 0
    assert names.read_bytes() == TOY["checkpoint"]
    if prefix != "model.ckpt":  # nothing was in its place
        assert tuple(path.read_bytes() for path in paths) == OTHER


def test_other_weights_are_kept_where_no_hash_is_published(tmp_path, monkeypatch, capsys):
    """By the hash of what was downloaded."""
    monkeypatch.setattr(release, "tensor_problem", lambda data: "")
    with MisbehavingServer({f"/lab/{name}": body for name, body in TOY.items()}) as server:
        assert run(server, tmp_path, "lab") == 0
        paths = put_checkpoint(tmp_path / "lab", "model.ckpt")
        assert run(server, tmp_path, "lab") == 1
    one_line(capsys, "complete checkpoint", "--force")
    assert tuple(path.read_bytes() for path in paths) == OTHER


def test_incomplete_checkpoint_of_another_model_is_replaced(server, tmp_path):
    _, data = put_checkpoint(tmp_path / "117M", "model.ckpt")
    data.write_bytes(OTHER[1][:-1])
    assert run(server, tmp_path, "117M") == 0
    assert data.read_bytes() == TOY[DATA]


@pytest.mark.parametrize("killed", [False, True])
def test_two_runs_at_once_share_the_work(lab, tmp_path, killed):
    """The second waits for the first, and goes on in its place if that is killed."""
    goes_on, part = threading.Event(), tmp_path / "lab" / "part.encoder.json"
    lab.faults[ENCODER] = [bad.stall(5000, goes_on)]
    first = start(lab, tmp_path, "lab")
    until(lambda: part.exists() and part.stat().st_size == 5000)
    second = start(lab, tmp_path, "lab")
    assert "already complete" in second.stderr.readline()
    assert "waiting for another run" in second.stderr.readline()
    if killed:
        first.kill()
    else:
        goes_on.set()
    first.communicate()
    # What the first run completed is not asked for again.
    assert f"lab/{'encoder' if killed else 'hparams'}.json" in second.communicate()[1]
    assert second.returncode == 1  # hparams.json is not there
    asked = [headers.get("Range") for path, headers in lab.requests if path == ENCODER]
    assert asked == ([None, "bytes=5000-"] if killed else [None])
    assert (tmp_path / "lab" / "encoder.json").read_bytes() == TOY["encoder.json"]
    goes_on.set()


def test_verify_tells_of_each_file_and_downloads_nothing(server, tmp_path, whole, capsys):
    whole("vocab.bpe").write_bytes(b"short")
    (tmp_path / "124M" / META).unlink()
    assert download_model.main(["--verify", "124M", *flags(server, tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "124M/vocab.bpe: has 5 bytes instead of 1900" in out
    assert f"124M/{META}: is not here" in out and out.count(": complete") == 5
    assert not server.requests
    run(server, tmp_path, "124M")
    assert download_model.main(["--verify", "--models_dir", str(tmp_path)]) == 0


def test_list_tells_sizes_and_what_is_here(server, tmp_path, capsys):
    run(server, tmp_path, "117M")
    (tmp_path / "124M").mkdir()
    (tmp_path / "124M" / "vocab.bpe").write_bytes(TOY["vocab.bpe"])
    size = f"{sum(map(len, TOY.values())) / 1000:.1f}kB"
    assert download_model.main(["--list", "--models_dir", str(tmp_path)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert size in lines["117M"] and lines["117M"].endswith("complete")
    assert "1 of 7 files" in lines["124M"]
    assert lines["345M"].endswith("not here")
    assert list(lines)[1:] == list(release.MODELS)


# What users see


def test_one_line_per_file_where_stderr_is_no_terminal(server, tmp_path, capsys):
    server.faults[f"/124M/{DATA}"] = [bad.drop(7)]
    assert run(server, tmp_path, "117M") == 0
    out, err = capsys.readouterr()
    assert out == ""
    *lines, why, last = err.splitlines()
    assert [line.split(":")[0] for line in [*lines, last]] == [f"117M/{n}" for n in FILES]
    assert DATA in why and "after 7 bytes; next try in" in why


@pytest.mark.parametrize("ranges", [True, False])
def test_bar_is_right_after_a_resume(server, tmp_path, whole, monkeypatch, ranges):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    server.always[f"/124M/{DATA}"] = bad.drop(5000)
    whole(DATA)
    assert run(server, tmp_path, "124M") == 1  # 30000 of 50000 bytes came
    server.always.clear()
    server.ranges = ranges
    server.faults[f"/124M/{DATA}"] = [bad.slowly(5000, 0.15)]
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert run(server, tmp_path, "124M") == 0
    shown = [float(n) for n in re.findall(r"([\d.]+)k?/50.0k", sys.stderr.getvalue())]
    assert shown[0] == 30 and max(shown) <= 50
    assert (min(shown) >= 30) == ranges


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["744M"], ["744M", "117M", "1558M"]),
        ([], ["117M", "1558M"]),
        (["117M", "--base_url", "ftp://a"], ["http://", "ftp://a"]),
        *((["117M", flag, text], [flag])
          for flag in ("--timeout", "--retry_wait")
          for text in ("nan", "inf", "0", "-1", "1e300", "1" * 5000, "x")),
        (["117M", "--no_such_flag"], ["--no_such_flag"]),
        (["--list", "--verify"], ["--verify"]),
        (["--verify", "--models_dir", "no such folder"], ["no such folder"]),
        *((["--base_url", "http://a", name], [repr(name), "117M"])
          for name in ("../x", "/tmp/x", "", ".", "..", "a/b/c", "a/..", "a/", "/a", "a\\b", "a:b",
                       "x.", "é", "a b")),
    ],
)  # fmt: skip
def test_wrong_usage_is_told_in_one_line(arguments, parts, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        download_model.main(arguments)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(part in line for part in parts)
    assert not list(tmp_path.iterdir())


def test_list_neither_imports_tensorflow_nor_hashes(monkeypatch, capsys):
    monkeypatch.setattr(release, "tensor_problem", lambda data: pytest.fail("slow"))
    monkeypatch.setattr(release.FileHash, "catch_up", lambda *args, **flags: pytest.fail("slow"))
    assert download_model.main(["--list", "--models_dir", str(ROOT / "models")]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("1M ")]
    assert line.endswith("complete")


@pytest.mark.parametrize("arguments", [["--help"], ["--", "--help"]])
def test_help_as_in_the_other_scripts(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        download_model.main(arguments)
    assert exit_.value.code == 0
    assert "--models_dir" in capsys.readouterr().out


def test_importing_does_nothing_and_needs_no_tensorflow(tmp_path):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import download_model\n"
    code += "assert 'tensorflow' not in sys.modules"
    command = [sys.executable, "-c", code, str(ROOT)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_models_land_in_the_repository_whatever_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert download_model.parse(["117M"]).models_dir == ROOT / "models"


# Files of which no hash is published


@pytest.mark.parametrize(
    "name, content, what",
    [
        ("encoder.json", b'{"a": 1', "is not JSON"),
        ("hparams.json", b"", "0 bytes"),
        ("vocab.bpe", b"\xff\xfe\x00", "is not text"),
        (INDEX, TOY[INDEX][:-3], "index"),
        (META, b" <Error>", "web page"),
    ],
)
def test_files_without_a_published_hash_are_checked_by_their_content(
    server, tmp_path, capsys, name, content, what
):
    server.files |= {f"/lab/{n}": b for n, b in TOY.items()} | {f"/lab/{name}": content}
    assert run(server, tmp_path, "lab") == 1
    one_line(capsys, f"{server.url}/lab/{name}", what)
    assert not (tmp_path / "lab" / name).exists()


@pytest.mark.parametrize("wrong", [True, False])
def test_content_md5_is_checked_where_given(server, tmp_path, capsys, wrong):
    server.files |= {f"/lab/{name}": TOY[name] for name in ("checkpoint", "encoder.json")}
    server.headers = lambda body: bad.md5(body + b"x" * (wrong and body != TOY["checkpoint"]))
    server.faults["/lab/encoder.json"] = [bad.drop(100)]
    assert run(server, tmp_path, "lab") == 1
    one_line(capsys, "has MD5" if wrong else "hparams.json: the server answers 404")
    assert (tmp_path / "lab" / "encoder.json").exists() != wrong


def test_length_may_be_unknown(released, tmp_path, whole):
    path = whole("vocab.bpe")
    with MisbehavingServer({"/124M/vocab.bpe": TOY["vocab.bpe"]}) as server:
        server.lengths = False
        assert run(server, tmp_path, "124M") == 0
    assert path.read_bytes() == TOY["vocab.bpe"]


@pytest.fixture
def checkpoint():
    """The files of a small checkpoint of the original code."""
    small = shared("golden/small")
    files = {name: (small / name).read_bytes() for name in ("checkpoint", INDEX, DATA)}
    return {f"/lab/{name}": body for name, body in (TOY | files).items()}


@pytest.mark.parametrize("damage", ["none", "bit", "length"])
def test_tensors_are_checked_by_the_checksums_of_the_index(tmp_path, capsys, checkpoint, damage):
    body = bytearray(checkpoint[f"/lab/{DATA}"])
    if damage == "bit":
        body[len(body) // 2] ^= 1
    checkpoint[f"/lab/{DATA}"] = bytes(body[: -10 if damage == "length" else None])
    with MisbehavingServer(checkpoint) as server:
        assert run(server, tmp_path, "lab") == (0 if damage == "none" else 1)
        seen = len(server.requests)
        if damage == "none":
            assert run(server, tmp_path, "lab") == 0 and len(server.requests) == seen
        else:
            what = f"{INDEX} (Checksum does not match" if damage == "bit" else "instead of 755968"
            one_line(capsys, f"{server.url}/lab/{DATA}", what)
    expected = [*FILES, SUMS] if damage == "none" else [*(set(FILES) - {DATA}), SUMS]
    assert sorted(p.name for p in (tmp_path / "lab").iterdir()) == sorted(expected)


def test_data_without_its_index_is_not_called_whole(tmp_path):
    (tmp_path / DATA).write_bytes(b"data")
    assert release.problem_on_disk(tmp_path, DATA) == f"cannot be checked without {INDEX}"


def test_data_that_cannot_be_checked_here_stays(tmp_path, capsys, checkpoint, monkeypatch):
    lines = "raise ModuleNotFoundError('No module named tensorflow')"
    (tmp_path / "tensorflow.py").write_text(lines, encoding="utf-8")
    with MisbehavingServer(checkpoint) as server:
        with monkeypatch.context() as patch:
            patch.setenv("PYTHONPATH", str(tmp_path))
            assert run(server, tmp_path, "lab") == 1
        one_line(capsys, DATA, "No module named tensorflow", "pip install")
        assert run(server, tmp_path, "lab") == 0
        assert server.sent[f"/lab/{DATA}"] == len(checkpoint[f"/lab/{DATA}"])


@pytest.mark.end_to_end
def test_downloaded_model_samples(tmp_path):
    model = ROOT / "models" / "1M"
    if not (model / DATA).exists():
        pytest.skip("models/1M is not there yet")
    files = {f"/1M/{name}": (model / name).read_bytes() for name in FILES}
    with MisbehavingServer(files) as server:
        size = len(files[f"/1M/{DATA}"])
        server.faults[f"/1M/{DATA}"] = [bad.drop(size // 4)] * 3
        process = start(server, tmp_path, "1M")
        _, err = process.communicate()
        assert process.returncode == 0, err
        assert server.sent[f"/1M/{DATA}"] == size
    script = str(ROOT / "src" / "generate_unconditional_samples.py")
    flags = ["--model_name", "1M", "--models_dir", str(tmp_path), "--nsamples", "1"]
    command = [sys.executable, script, *flags, "--length", "5"]
    result = subprocess.run(command, capture_output=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr.decode(errors="replace")
    assert b"SAMPLE 1" in result.stdout
