"""How fast a 500 MB file comes from loopback, against curl: `python benchmarks/bench_download.py`.

Both are started as processes of their own and write to the same disk in turn. Ours hashes the
file, compares the hash and flushes the file to the disk; curl does none of that. Prints seconds,
their ratio (curl's time over ours, the median over the pairs) and the peak of memory.
"""

import argparse
import hashlib
import http.server
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = """
import hashlib, pathlib, resource, sys
sys.path.insert(0, sys.argv[1] + "/src")
from gpt2.download import fetch, folder, release
url, path, size, sha256 = sys.argv[2], pathlib.Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
known = release.Known(size, sha256)
with folder.only_run(path, print) as sums:
    fetch.download([url], path / release.META, sums, known, fetch.Settings(print))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def serve(path: Path, ports: multiprocessing.SimpleQueue) -> None:
    """Send the file at `path` to whoever asks, as fast as the kernel can."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            with path.open("rb") as file:
                self.connection.sendfile(file)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ports.put(server.server_port)
    server.serve_forever()


def timed(command: list[str]) -> tuple[float, str]:
    """Seconds that a command takes, and what it printed."""
    start = time.perf_counter()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return time.perf_counter() - start, output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--folder", help="where to write; its disk counts")
    parser.add_argument("--smoke", action="store_true", help="a tiny case, to see that it runs")
    options = parser.parse_args()
    if options.smoke:
        options.megabytes, options.pairs = 2, 1
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder, source = Path(name) / "bench", Path(name) / "source"
        folder.mkdir()
        digest = hashlib.sha256()
        with source.open("wb") as file:
            for _ in range(options.megabytes):
                block = os.urandom(10**6)
                digest.update(block)
                file.write(block)
        size, sha256 = source.stat().st_size, digest.hexdigest()
        ports = multiprocessing.SimpleQueue()
        server = multiprocessing.Process(target=serve, args=(source, ports), daemon=True)
        server.start()
        url, theirs, ours = f"http://127.0.0.1:{ports.get()}/file", [], []
        curl = ["curl", "--silent", "--fail", "--output", str(folder / "curl"), url]
        python = [sys.executable, "-c", OURS, str(ROOT), url, str(folder), str(size), sha256]
        memory = 0
        print(f"{size / 1e6:.0f} MB from loopback, {options.pairs} pairs in turn")
        for _ in range(options.pairs):
            theirs.append(timed(curl)[0])
            seconds, kib = timed(python)
            ours.append(seconds)
            memory = max(memory, int(kib) * (1 if sys.platform == "darwin" else 1024))
            for path in folder.iterdir():  # each finds an empty folder; a wrong file had failed
                assert path.name == "SHA256SUMS" or path.stat().st_size == size
                path.unlink()
            print(f"  curl {theirs[-1]:.2f} s   download_model.py {ours[-1]:.2f} s")
        server.kill()
    ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
    print(f"| curl | download_model.py | ratio | peak memory |\n|{'---|' * 4}")
    print(f"| {statistics.median(theirs):.2f} s | {statistics.median(ours):.2f} s ", end="")
    print(f"| {ratio:.0%} | {memory / 1e6:.0f} MB |")


if __name__ == "__main__":
    main()
