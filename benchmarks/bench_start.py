"""Seconds from a command to its text, next to transformers and llama.cpp.

    python3 benchmarks/bench_start.py --peer_python OTHER_ENVIRONMENT/bin/python

Each figure comes from fresh processes, which take turns; the table has medians. All engines have
the same random weights of the 117M shape, made at the first run in --folder (2 GB with the formats
that the others read), and a vocabulary in which each token has one space, so that spaces count
tokens. Ours is the script as a user runs it, into a pipe or a terminal. transformers loads a local
folder with its tokenizer, and prints each token. llama.cpp has no vocabulary here and is given
token ids.

The machine must have nothing else to do. Cases, of which --cases takes some:

    prompt   a prompt of 512 tokens, continued by 150: seconds to the first and to the 50th token,
             and the longest pause between two pieces of text after the first
    long     ours alone, a text of 1,023 tokens: the longest pause
    ready    ours alone, seconds to the prompt at which a person can type
    small    ours alone, seconds to the first text of the 1M model, and of `import tensorflow`

--layers 12,24,48 prints instead how long the graph takes to build and to compile, by layers.
"""

import contextlib
import importlib.metadata
import itertools
import json
import os
import pty
import statistics
import string
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from bench_decode import ROOT, THREADS, TINY, make_weights, options, processor

SCRIPT = ROOT / "src" / "interactive_conditional_samples.py"
PROMPT, TOKENS, NTH, TOP_K = 512, 150, 50, 40
LONG = 1023
READY = "Model prompt >>> "
BANNER_END = " SAMPLE 1 " + 40 * "=" + "\n"
CASES = "prompt,long,ready,small"
PAUSE = 0.5  # seconds between two processes


@dataclass
class Run:
    """What a process printed: pairs of seconds since its start, and text."""

    pieces: list

    def after(self, start):
        """The pieces of text after the first `start`."""
        seen, found = "", []
        for seconds, text in self.pieces:
            before, seen = len(seen), seen + text
            at = seen.find(start)
            if at >= 0 and (new := seen[max(before, at + len(start)) :]):
                found.append((seconds, new))
        return Run(found)

    def until_token(self, n):
        """Seconds to the nth token, each of which has a space."""
        count = 0
        for seconds, text in self.pieces:
            count += text.count(" ")
            if count >= n:
                return seconds
        raise ValueError(f"only {count} tokens came")

    def longest_pause(self):
        times = [seconds for seconds, _ in self.pieces]
        return max(b - a for a, b in itertools.pairwise(times))


def watch(command, until=None, terminal=False):
    """Run a command and note when it prints what; end it once it has printed `until`."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    began, pieces = time.time(), []
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=errors,
            start_new_session=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HOME": tempfile.gettempdir()},
        )
        os.close(theirs)
        with contextlib.suppress(OSError):  # how a terminal ends
            while text := os.read(ours, 1 << 16):
                pieces.append((time.time() - began, text.decode("utf-8", "replace")))
                if until and until in "".join(text for _, text in pieces):
                    process.kill()
                    break
        os.close(ours)
        if process.wait() and not until:
            errors.seek(0)
            sys.exit(f"{command} failed:\n{errors.read().decode()}")
    return Run(pieces)


def ours(model, *options, **how):
    """A run of the script. The seed is not given, as users mostly do not."""
    place = [f"--model_name={model.name}", f"--models_dir={model.parent}", "--device=cpu"]
    return watch([sys.executable, str(SCRIPT), *place, *options], **how)


def continued(model, n_prompt, tokens):
    """The text of a run that continues a prompt, in tokens."""
    options = [f"--length={tokens}", f"--top_k={TOP_K}", "--nostop_at_end"]
    run = ours(model, f"--prompt={prompt(n_prompt)}", *options).after(BANNER_END)
    return Run([(s, text.partition("\n" + 80 * "=")[0]) for s, text in run.pieces])


def prompt(n):
    """A text of n tokens."""
    return " abc" * n


def peer(engine, flags):
    """A run of another engine, in the other environment."""
    program = str(Path(__file__).with_name("start_peer.py"))
    options = [engine, flags.folder, prompt(PROMPT), PROMPT, TOKENS, TOP_K]
    return watch([flags.peer_python, program, *map(str, options)])


def available(flags):
    """The other engines that the other environment has. Each runs once, as it may write files."""
    packages = {"transformers": ["transformers", "torch"], "llama.cpp": ["llama-cpp-python"]}
    code = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
    found = []
    for engine, names in packages.items():
        command = [flags.peer_python, "-c", code, *names]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{engine} is left out: {done.stderr.strip().splitlines()[-1]}")
            continue
        versions = zip(names, done.stdout.split(), strict=True)
        print(f"{engine}: {', '.join(map(' '.join, versions))}")
        peer(engine, flags)
        found.append(engine)
    return found


def make_model(folder, hparams):
    """Write what is missing of the model: weights, vocabulary, and transformers' form of both."""
    from gpt2.conversion import to_hf
    from gpt2.model_folder import ModelFolder
    from gpt2.tensorflow_session import import_tensorflow

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "weights.npz").exists():
        make_weights(folder, hparams, import_tensorflow())
    if not (folder / "vocab.bpe").exists():
        make_vocabulary(folder, hparams.n_vocab)
    if not (folder / "hf").exists():
        to_hf.convert(ModelFolder(folder), folder / "hf")


def make_vocabulary(folder, n_vocab):
    """Each token but those of single bytes is a space and some letters."""
    from encoder import END_OF_TEXT, bytes_to_unicode

    single, tokens, merges = [*bytes_to_unicode().values()], ["\u0120"], []
    n_merges = n_vocab - len(single) - 1
    for token in tokens:
        merges += [(token, letter) for letter in string.ascii_letters]
        if len(merges) >= n_merges:
            break
        tokens += [token + letter for letter in string.ascii_letters]
    del merges[n_merges:]
    names = [*single, *map("".join, merges), END_OF_TEXT]
    ids = {name: i for i, name in enumerate(names)}
    (folder / "encoder.json").write_text(json.dumps(ids), encoding="utf-8")
    lines = ["#version: 0.2", *map(" ".join, merges), ""]
    (folder / "vocab.bpe").write_text("\n".join(lines), encoding="utf-8")


@dataclass
class Row:
    """A line of the table: seconds by engine; and what ours may be, in words and in seconds."""

    label: str
    seconds: dict
    bar: str = ""
    most: float | None = None

    def __str__(self):
        cells = [f"{self.seconds[name]:.2f}" if name in self.seconds else "" for name in COLUMNS]
        met = "" if self.most is None else "yes" if self.seconds["ours"] <= self.most else "no"
        return f"{self.label:<42}" + "".join(f"{c:>14}" for c in cells) + f"  {self.bar:<24}{met}"


COLUMNS = ["ours", "transformers", "llama.cpp"]


def medians(flags, *measures):
    """Call measures in turn: the median of what each returns, which is a dict of seconds."""
    found = [{} for _ in measures]
    for _ in range(flags.rounds):
        for measure, values in zip(measures, found, strict=True):
            time.sleep(PAUSE)
            for name, seconds in measure().items():
                values.setdefault(name, []).append(seconds)
    return [{name: statistics.median(s) for name, s in values.items()} for values in found]


def times(run):
    """The seconds of a run that a row shows."""
    pause = run.longest_pause()
    return {"first": run.until_token(1), "nth": run.until_token(NTH), "pause": pause}


def prompt_rows(flags, peers):
    engines = ["ours", *peers]
    measures = [lambda: times(continued(flags.folder, PROMPT, TOKENS))]
    measures += [lambda name=name: times(peer(name, flags)) for name in peers]
    found = dict(zip(engines, medians(flags, *measures), strict=True))

    def row(name, label, bar="", most=None):
        seconds = {engine: values[name] for engine, values in found.items()}
        if bar.endswith("transformers"):
            most = seconds.get("transformers")
        return Row(label, seconds, bar, most)

    yield row("first", f"first token, prompt of {PROMPT}", "1.0 of transformers")
    yield row("nth", f"{NTH}th token", "1.0 of transformers")
    yield row("pause", f"longest pause in {TOKENS} tokens", "0.5 s", 0.5)


def long_rows(flags, peers):
    (found,) = medians(flags, lambda: times(continued(flags.folder, 1, LONG)))
    yield Row("first token, prompt of 1", {"ours": found["first"]})
    yield Row(f"longest pause in {LONG} tokens", {"ours": found["pause"]}, "0.5 s", 0.5)


def ready_rows(flags, peers):
    model = small_model() if flags.smoke else flags.folder

    def ready():
        return {"ready": ours(model, until=READY, terminal=True).pieces[-1][0]}

    (found,) = medians(flags, ready)
    yield Row("prompt ready", {"ours": found["ready"]}, "0.5 s", 0.5)


def small_rows(flags, peers):
    def first_text():
        run = ours(small_model(), "--prompt=ROMEO:", "--length=100").after(BANNER_END)
        return {"first": run.pieces[0][0]}

    def bare_import():
        run = watch([sys.executable, "-c", "import tensorflow; print('there', flush=True)"])
        return {"import": run.pieces[-1][0]}

    text, tensorflow = medians(flags, first_text, bare_import)
    yield Row("import tensorflow, nothing else", {"ours": tensorflow["import"]})
    bar = 1.5 * tensorflow["import"]
    yield Row("first text of 1M", {"ours": text["first"]}, f"1.5 of the import, {bar:.2f}", bar)


def small_model():
    return ROOT / "models" / "1M"


def print_layers(hparams, layers):
    """How long the graph of a decoder takes to build, and its loop to compile, by layers."""
    print(f"{hparams}, but n_layer\n{'layers':>6} {'build, s':>9} {'compile, s':>11}")
    from gpt2.tensorflow_session import import_tensorflow

    tf = import_tensorflow()
    import decoder
    import sample

    for n_layer in layers:
        with tf.Graph().as_default(), tf.Session() as session:
            began = time.time()
            made = decoder.Decoder(
                replace(hparams, n_layer=n_layer),
                lambda logits, uniform, *_: sample.sample_token(logits, uniform),
                1,
            )
            building = time.time() - began
            zeros = [v.assign(tf.zeros(v.shape), read_value=False) for v in tf.global_variables()]
            session.run(zeros)
            feed = {made.context: [[0]], made.lengths: [1], made.seed: 0, made.sample_indices: [1]}
            feed |= {made.stop: -1, made.end: 1, made.cache_length: hparams.n_ctx}
            session.run(made.prefill, feed)
            began = time.time()
            session.run(made.decode, feed)
            print(f"{n_layer:>6} {building:9.1f} {time.time() - began:11.1f}", flush=True)


def main():
    parser = options(__doc__, CASES, rounds=5)
    parser.add_argument("--peer_python", default=sys.executable, help="has what is compared with")
    parser.add_argument("--layers", help="print building and compiling alone; as in 12,24,48")
    flags = parser.parse_args()
    if flags.layers:
        return print_layers(flags.hparams, map(int, flags.layers.split(",")))
    if flags.smoke:
        flags.cases, flags.rounds = "ready", 1
        print_layers(TINY, [1])
    measure(flags)


def measure(flags):
    tensorflow = importlib.metadata.version("tensorflow")
    print(f"{processor()}, {THREADS} cores; TensorFlow {tensorflow}; median of {flags.rounds}")
    peers = []
    if not flags.smoke:
        make_model(flags.folder, flags.hparams)
    if "prompt" in flags.cases.split(","):
        peers = available(flags)
    print(f"\n{'seconds from process start':<42}" + "".join(f"{n:>14}" for n in COLUMNS) + "  bar")
    kinds = {"prompt": prompt_rows, "long": long_rows, "ready": ready_rows, "small": small_rows}
    for case in flags.cases.split(","):
        for row in kinds[case](flags, peers):
            print(row, flush=True)


if __name__ == "__main__":
    main()
