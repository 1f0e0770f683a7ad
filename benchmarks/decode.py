"""Tokens per second in sampling, beside Hugging Face transformers and CTranslate2.

    python3 benchmarks/decode.py --peer_python OTHER_ENVIRONMENT/bin/python

All have the same random weights of the 117M shape, made at the first run in --folder (1.6 GB). Each
engine is a process that lives as long as the benchmark. They take turns at each case; those whose
turn it is not wait for a line on stdin, and the processor time that they take meanwhile is shown.
A ratio is the median of the ratios of single rounds: on a busy machine nothing else says much.
Before anything is timed, the greedy samples of the engines are held against each other.

A case is BATCHxTOKENS, after a prompt of one token, with top_k 40; or prefillN, the first token
after a prompt of N. `largest` is the batch that fills 8 GB with weights and caches. Ours compiles
in its first run of a case, which has a column of its own.

Memory and processor time are read from Linux's /proc.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from peer import hugging_face_model

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "src"))  # at the end, as `train` there is another than here

CASES = "1x127,1x255,1x1023,8x255,32x127,32x255,32x1023,largestx255,prefill512"
LARGEST = 8e9  # bytes
THREADS = os.cpu_count()
CHECKED_PROMPTS, CHECKED_CONTEXT, CHECKED_TOKENS = 8, 16, 32
PAUSE = 0.5  # seconds; for 0.2 after its work, OpenMP keeps its threads spinning


class Ours:
    """sample_sequence of src/sample.py. Makes the weights where they are missing."""

    def __init__(self, folder, hparams):
        from command_line import import_tensorflow

        self.tf = import_tensorflow()
        self.imported = time.time()
        import checkpoint
        from device import choose_device
        from settings import HParams

        self.name = f"TensorFlow {self.tf.__version__}"
        self.hparams = HParams(**hparams)
        config, _ = choose_device("cpu", self.tf)
        config.intra_op_parallelism_threads = THREADS
        if not (folder / "weights.npz").exists():
            self._make_weights(folder)
        self.session = self.tf.Session(config=config)
        self._samples(1, 1, greedy=False)
        weights = checkpoint.find_weights(folder, checkpoint.load_hparams(folder))
        checkpoint.restore(self.session, weights)

    def _make_weights(self, folder):
        """Random variables, as a released checkpoint and for the peers."""
        import model

        with self.tf.Graph().as_default(), self.tf.Session() as session:
            model.model(self.hparams, self.tf.zeros([1, 1], self.tf.int32))
            values, rng = {}, np.random.default_rng(0)
            for variable in self.tf.global_variables():
                name = variable.op.name
                value = rng.normal(scale=0.02, size=variable.shape).astype(np.float32)
                if name == "model/ln_f/g":
                    value *= 50  # of both signs: else a token makes itself the likeliest
                elif name.endswith("/g"):
                    value += 1
                variable.load(value, session)
                values[name] = value
            self.tf.train.Saver().save(session, str(folder / "model.ckpt"))
        shape = json.dumps(dataclasses.asdict(self.hparams))
        (folder / "hparams.json").write_text(shape, encoding="utf-8")
        np.savez(folder / "part.npz", **values)
        (folder / "part.npz").rename(folder / "weights.npz")

    @functools.cache  # noqa: B019  one object a process
    def _samples(self, batch, tokens, greedy):
        import sample

        context = self.tf.placeholder(self.tf.int32, [batch, None])
        draw = {"temperature": 0} if greedy else {"top_k": 40}
        return context, sample.sample_sequence(
            hparams=self.hparams, length=tokens, context=context, **draw
        )

    def run(self, prompts, tokens, greedy):
        """The token ids that continue each of `prompts`, which are of one length."""
        context, samples = self._samples(len(prompts), tokens, greedy)
        return self.session.run(samples, {context: prompts})[:, len(prompts[0]) :].tolist()


class Transformers:
    def __init__(self, folder, hparams):
        import torch
        import transformers

        torch.set_num_threads(THREADS)
        self.torch = torch
        self.name = f"transformers {transformers.__version__}, PyTorch {torch.__version__}"
        self.model = peer_model(folder, hparams).eval()
        self.model.generation_config.eos_token_id = None

    def run(self, prompts, tokens, greedy):
        ids = self.torch.tensor(prompts)
        draw = {"do_sample": False} if greedy else {"do_sample": True, "top_k": 40}
        with self.torch.inference_mode():
            rows = self.model.generate(
                ids,
                attention_mask=self.torch.ones_like(ids),
                max_new_tokens=tokens,
                pad_token_id=0,
                **draw,
            )
        return rows[:, ids.shape[1] :].tolist()


class CTranslate2:
    """Its names of the tokens are their ids in digits."""

    def __init__(self, folder, hparams):
        import ctranslate2

        self.name = f"CTranslate2 {ctranslate2.__version__}"
        converted = folder / "ctranslate2"
        if not converted.exists():
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                self._convert(folder, hparams, Path(temporary)).rename(converted)
        self.generator = ctranslate2.Generator(
            str(converted),
            compute_type="float32",
            intra_threads=THREADS,
            inter_threads=1,
        )

    @staticmethod
    def _convert(folder, hparams, temporary):
        from ctranslate2.converters import TransformersConverter

        peer_model(folder, hparams).save_pretrained(temporary)
        end = str(hparams["n_vocab"] - 1)
        special = dict.fromkeys(["unk_token", "bos_token", "eos_token"], end)
        vocabulary = {str(i): i for i in range(hparams["n_vocab"])}
        for name, content in {
            "vocab.json": vocabulary,
            "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", **special},
        }.items():
            (temporary / name).write_text(json.dumps(content), encoding="utf-8")
        (temporary / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        return Path(TransformersConverter(str(temporary)).convert(str(temporary / "converted")))

    def run(self, prompts, tokens, greedy):
        results = self.generator.generate_batch(
            [[str(token) for token in prompt] for prompt in prompts],
            max_length=tokens,
            min_length=tokens,
            sampling_topk=1 if greedy else 40,
            include_prompt_in_result=False,
        )
        return [result.sequences_ids[0] for result in results]


ENGINES = {"ours": Ours, "transformers": Transformers, "ctranslate2": CTranslate2}


def peer_model(folder, hparams):
    names = {"n_vocab": "vocab_size", "n_ctx": "n_positions"}
    shape = {names.get(name, name): value for name, value in hparams.items()}
    return hugging_face_model(folder / "weights.npz", **shape)


def serve(flags):
    """Be an engine: answer each request on stdin, the arguments of `run`, by a line."""
    try:
        engine = ENGINES[flags.serve](flags.folder, flags.hparams)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    imported = getattr(engine, "imported", None)
    print(json.dumps({"name": engine.name, "imported": imported}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        began = time.perf_counter()
        ids = engine.run(**request)
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "ids": ids}), flush=True)


class Worker:
    """An engine in a process of its own: this script with --serve."""

    def __init__(self, engine, flags, stack):
        self.engine, self.began = engine, time.time()
        self.process = stack.enter_context(
            subprocess.Popen(
                [
                    sys.executable if engine == "ours" else flags.peer_python,
                    __file__,
                    f"--serve={engine}",
                    f"--folder={flags.folder}",
                    f"--hparams={json.dumps(flags.hparams)}",
                ],
                env={**os.environ, "OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        self.hello = self._read()

    def _read(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else sys.exit(f"{self.engine} failed: see above")

    def run(self, prompts, tokens, greedy=False):
        """Let it continue prompts: seconds, and the token ids."""
        request = {"prompts": prompts, "tokens": tokens, "greedy": greedy}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        reply = self._read()
        assert [len(row) for row in reply["ids"]] == [tokens] * len(prompts)
        return reply["seconds"], reply["ids"]

    def peak_memory(self):
        """Bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])

    def processor_seconds(self):
        stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass
class Case:
    label: str
    batch: int
    context: int
    tokens: int

    @classmethod
    def parse(cls, label, hparams):
        if found := re.fullmatch(r"prefill(\d+)", label):
            return cls(label, 1, int(found[1]), 1)
        found = re.fullmatch(r"(\d+|largest)x(\d+)", label)
        if not found:
            sys.exit(f"no case {label!r}; it is BATCHxTOKENS, largestxTOKENS or prefillN")
        tokens = int(found[2])
        batch = largest_batch(tokens, hparams) if found[1] == "largest" else int(found[1])
        return cls(f"{batch}x{tokens}", batch, 1, tokens)

    def worth(self):
        """The tokens that are counted."""
        return self.context if self.tokens == 1 else self.batch * self.tokens


def largest_batch(tokens, hparams):
    """How many samples fit in 8 GB beside the weights, by what the sampling scripts reckon."""
    from sampler import sample_bytes, slots_for

    return int(
        (LARGEST - 4 * hparams.n_params()) / sample_bytes(hparams, slots_for(tokens, hparams))
    )


def prompts(n, length, n_vocab):
    return np.random.default_rng(length).integers(0, n_vocab, [n, length]).tolist()


def check_equal(workers, n_vocab):
    """Compare greedy samples of all engines; ends the process if they differ."""
    texts = prompts(CHECKED_PROMPTS, CHECKED_CONTEXT, n_vocab)
    (_, expected), *others = (w.run(texts, CHECKED_TOKENS, greedy=True) for w in workers)
    distinct = min(len(set(row)) for row in expected)
    for worker, (_, rows) in zip(workers[1:], others, strict=True):
        same = sum(a == b for a, b in zip(rows, expected, strict=True))
        print(
            f"greedy: {same} of {len(rows)} samples of {CHECKED_TOKENS} tokens are those of "
            f"{worker.engine}; {distinct} distinct tokens at least"
        )
        if same < len(rows):
            sys.exit("the engines differ: nothing is timed")


class Bandwidth:
    """What all cores together read of memory."""

    def __init__(self):
        self.parts = np.array_split(np.ones(1 << 28, np.float32), THREADS)

    def measure(self):
        """Bytes per second, the best of five reads of 1 GiB."""
        seconds = []
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in range(5):
                began = time.perf_counter()
                list(pool.map(np.sum, self.parts))
                seconds.append(time.perf_counter() - began)
        return sum(part.nbytes for part in self.parts) / min(seconds)


@dataclasses.dataclass
class Idleness:
    """Processor time that engines take while another one is timed."""

    idle: dict = dataclasses.field(default_factory=dict)  # seconds, by engine
    watched: float = 0  # seconds

    @contextlib.contextmanager
    def watch(self, workers):
        began, before = time.perf_counter(), [w.processor_seconds() for w in workers]
        yield
        self.watched += time.perf_counter() - began
        for worker, seconds in zip(workers, before, strict=True):
            used = worker.processor_seconds() - seconds
            self.idle[worker.engine] = self.idle.get(worker.engine, 0) + used

    def report(self):
        shares = ", ".join(f"{name} {s / self.watched:.1%}" for name, s in self.idle.items())
        return f"of a core, used while others are timed: {shares}"


def time_case(case, workers, flags, idleness):
    """Seconds of our first run, and by engine the tokens per second of each round."""
    texts = prompts(case.batch, case.context, flags.hparams["n_vocab"])
    first, _ = workers[0].run(texts, case.tokens)
    for worker in workers[1:]:
        worker.run(texts, min(case.tokens, CHECKED_TOKENS))
    speeds = {worker.engine: [] for worker in workers}
    for _ in range(flags.rounds):
        for worker in workers:
            time.sleep(PAUSE)
            with idleness.watch([other for other in workers if other is not worker]):
                seconds, _ = worker.run(texts, case.tokens)
            speeds[worker.engine].append(case.worth() / seconds)
    return first, speeds


def row(label, first, speeds):
    """A line of the table: medians of the rounds."""
    ours, *peers = speeds.values()
    ratios = [statistics.median(a / b for a, b in zip(ours, peer, strict=True)) for peer in peers]
    medians = "".join(f"{statistics.median(values):14.1f}" for values in speeds.values())
    return f"{label:<11}{medians}{''.join(f'{ratio:18.2f}' for ratio in ratios)}{first:13.1f}"


def print_table(workers, flags):
    """Time all cases; then how near those of batch 1 come to what memory can deliver."""
    names = [worker.engine for worker in workers]
    heads = "".join(f"{name:>14}" for name in names)
    ratios = "".join(f"{'ours/' + name:>18}" for name in names[1:])
    print(f"\n{'tokens/s':<11}{heads}{ratios}{'first run, s':>13}")
    idleness, bandwidth, shares = Idleness(), Bandwidth(), []
    for case in flags.cases:
        reads = [bandwidth.measure()]
        first, speeds = time_case(case, workers, flags, idleness)
        print(row(case.label, first, speeds), flush=True)
        reads.append(bandwidth.measure())
        if case.batch == 1 and case.tokens > 1:
            read = statistics.mean(reads)
            weights = 4 * flags.hparams_object.n_params()
            parts = ", ".join(
                f"{name} {statistics.median(values) * weights / read:.0%}"
                for name, values in speeds.items()
            )
            shares.append(
                f"{case.label}: {read / 1e9:.1f} GB/s by a plain read; weights read: {parts}"
            )
    print("", *shares, idleness.report(), sep="\n")


def print_start(flags):
    """A fresh process of ours: to its first token, and its peak memory."""
    n_vocab, n_ctx = flags.hparams["n_vocab"], flags.hparams["n_ctx"]
    context, tokens = min(512, n_ctx), n_ctx - 1
    with contextlib.ExitStack() as stack:
        worker = Worker("ours", flags, stack)
        worker.run(prompts(1, context, n_vocab), 1)
        total, imported = time.time() - worker.began, worker.hello["imported"] - worker.began
    print(
        f"process start to the first token after a prompt of {context}: {total:.1f} s, "
        f"{imported:.1f} of it until TensorFlow is imported, {total - imported:.1f} since"
    )
    with contextlib.ExitStack() as stack:
        worker = Worker("ours", flags, stack)
        worker.run(prompts(1, 1, n_vocab), tokens)
        print(f"peak memory of a process, 1x{tokens}: {worker.peak_memory() / 1e9:.2f} GB")


def processor():
    with contextlib.suppress(OSError, IndexError):
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return re.findall(r"model name\s*: (.+)", info)[0]
    return platform.machine()


def main():
    from settings import HParams

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer_python", default=sys.executable, help="has what is compared with")
    parser.add_argument("--folder", type=Path, default=ROOT / "models" / "benchmark")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--hparams", type=json.loads, default={}, help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    hparams = HParams(**flags.hparams)
    flags.hparams = dataclasses.asdict(hparams)
    if flags.serve:
        return serve(flags)

    flags.hparams_object = hparams
    flags.cases = [Case.parse(label, hparams) for label in flags.cases.split(",")]
    flags.folder.mkdir(parents=True, exist_ok=True)
    held = flags.folder / "hparams.json"
    if held.exists() and json.loads(held.read_text(encoding="utf-8")) != flags.hparams:
        parser.error(f"{flags.folder} is of another shape; choose another --folder")
    print(f"{processor()}, {THREADS} cores, {hparams.n_params() / 1e6:.0f}M parameters")
    with contextlib.ExitStack() as stack:
        workers = []
        for engine in ENGINES:
            worker = Worker(engine, flags, stack)
            if "missing" in worker.hello:
                print(f"{engine} is left out: {worker.hello['missing']}")
            else:
                print(f"{engine}: {worker.hello['name']}")
                workers.append(worker)
        check_equal(workers, flags.hparams["n_vocab"])
        print_table(workers, flags)
    print_start(flags)


if __name__ == "__main__":
    main()
