"""Check src/convert.py against transformers and PyTorch, which have an environment of their own.

    python3 tools/check_transformers.py --peer_python peers/bin/python

For the model 1M, and for random weights of the 117M shape: token ids of the texts, logits, and
greedy samples must agree; what transformers saves must convert back to the same bits.
`make check-transformers` sets up the environment, too.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"  # reference data; a fresh clone has none
sys.path.insert(0, str(ROOT / "src"))

PROMPT = "To be, or not to be: that is the"
END_OF_TEXT = "<|endoftext|>"
LENGTH = 200  # tokens of a greedy sample
BATCH, SEQUENCE = 2, 128  # of the tokens whose logits are compared
TOLERANCE = 1e-4


def main() -> int:
    """Check both models; 0 if all agrees."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--peer_python", required=True, help="a Python that has transformers")
    options.add_argument("--texts", nargs="*", type=Path, help="files whose token ids are compared")
    given = options.parse_args()
    texts = given.texts or sorted(SHARED.glob("corpus/*.txt")) or sorted(ROOT.glob("*.md"))
    agree = []
    with tempfile.TemporaryDirectory() as name:
        random_model = Path(name) / "random-117M"
        make_random_model(random_model)
        for folder in (ROOT / "models" / "1M", random_model):
            agree.append(check(folder, Path(name), given.peer_python, texts))
    return 0 if all(agree) else 1


def check(folder: Path, work: Path, peer_python: str, texts: list[Path]) -> bool:
    """Convert a model, let transformers use it, and compare; prints what was found."""
    from gpt2.conversion import from_hf, to_hf
    from gpt2.model_folder import ModelFolder

    there, saved = work / f"{folder.name}-there", work / f"{folder.name}-saved"
    to_hf.convert(ModelFolder(folder), there)
    ours = run_here(folder, work, texts)
    np.save(work / "tokens.npy", ours["tokens"])
    question = {"folder": str(there), "saved": str(saved), "texts": [str(path) for path in texts]}
    answer = work / f"{folder.name}.npz"
    subprocess.run(
        [peer_python, __file__, "peer", json.dumps(question), work / "tokens.npy", answer],
        check=True,
    )
    from_hf.convert(saved, work / f"{folder.name}-back")
    theirs = np.load(answer)
    difference = float(np.abs(ours["logits"] - theirs["logits"]).max())
    same = [np.array_equal(ours[f"ids{i}"], theirs[f"ids{i}"]) for i in range(len(texts))]
    agree = {
        f"logits differ by {difference:.1e} of {np.abs(ours['logits']).max():.0f}": difference
        <= TOLERANCE,
        f"{LENGTH} greedy tokens": np.array_equal(ours["greedy"], theirs["greedy"]),
        f"{sum(ours[f'ids{i}'].size for i in range(len(texts)))} token ids": all(same),
        "weights there and back": index(folder) == index(work / f"{folder.name}-back"),
    }
    for what, holds in agree.items():
        print(f"{folder.name}: {what}: {'agree' if holds else 'DIFFER'}", flush=True)
    return all(agree.values())


def index(folder: Path) -> bytes:
    """The index of a checkpoint, which has a checksum of each tensor."""
    return (folder / "model.ckpt.index").read_bytes()


def make_random_model(folder: Path) -> None:
    """A model of the 117M shape, with a random vocabulary where the released one is not here."""
    from gpt2.conversion.vocabulary import write_released
    from gpt2.tensorflow_session import import_tensorflow
    from hparams import HParams

    tf = import_tensorflow()
    import encoder
    import model

    folder.mkdir()
    hparams = HParams()
    (folder / "hparams.json").write_text(hparams.to_json(), encoding="utf-8")
    if (SHARED / "gpt2").exists():
        for name in ("encoder.json", "vocab.bpe"):
            (folder / name).write_bytes((SHARED / "gpt2" / name).read_bytes())
    else:
        characters = list(encoder.bytes_to_unicode().values())
        pairs = [(a, b) for a in characters for b in characters]
        merges = random.Random(0).sample(pairs, hparams.n_vocab - len(characters) - 1)
        tokens = [*characters, *map("".join, merges), END_OF_TEXT]
        write_released(folder, {token: i for i, token in enumerate(tokens)}, merges)
    rng = np.random.default_rng(0)
    with tf.Graph().as_default(), tf.Session() as session:
        model.model(hparams, tf.placeholder(tf.int32, [None, None]))
        for variable in tf.global_variables():
            # Large embeddings, and a last gain of both signs: so a greedy sample varies.
            name = variable.op.name
            scale = {"model/wte": 0.2, "model/wpe": 0.2, "model/ln_f/g": 1}.get(name, 0.02)
            mean = 1 if name.endswith("/g") and scale < 1 else 0
            value = rng.normal(mean, scale, variable.shape).astype(np.float32)
            variable.load(value, session)
        tf.train.Saver(save_relative_paths=True).save(session, str(folder / "model.ckpt"))


def run_here(folder: Path, work: Path, texts: list[Path]) -> dict[str, np.ndarray]:
    """What this repository makes of a model."""
    from gpt2 import checkpoint
    from gpt2.model_folder import ModelFolder
    from gpt2.tensorflow_session import import_tensorflow

    tf = import_tensorflow()
    import model

    model_folder = ModelFolder(folder)
    hparams, encoder = model_folder.hparams, model_folder.encoder
    tokens = np.random.default_rng(1).integers(0, hparams.n_vocab, [BATCH, SEQUENCE])
    with tf.Graph().as_default(), tf.Session() as session:
        output = model.model(hparams, tf.constant(tokens, tf.int32))
        checkpoint.restore(session, model_folder.weights)
        logits = session.run(output["logits"])
    ids = [encoder.encode(read(path), allow_special=True) for path in texts]
    return {
        "tokens": tokens,
        "logits": logits,
        "greedy": np.array(greedy(folder, work)),
        **{f"ids{i}": np.array(found) for i, found in enumerate(ids)},
    }


def greedy(folder: Path, work: Path) -> list[int]:
    """Token ids of a greedy sample, from the script."""
    prompts = work / "prompts.txt"
    prompts.write_text(PROMPT, encoding="utf-8")
    script = ROOT / "src" / "generate_conditional_samples.py"
    flags = f"--nsamples 1 --length {LENGTH} --temperature 0 --nostop_at_end --format jsonl"
    model = ["--models_dir", str(folder.parent), "--model_name", folder.name, "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, script, "--prompts", prompts, *flags.split(), *model],
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    sample: list[int] = json.loads(done.stdout.splitlines()[-1])["tokens"]
    return sample


def read(path: str | Path) -> str:
    """A text as it is, whatever ends its lines."""
    return Path(path).read_bytes().decode("utf-8")


def peer(question: dict[str, Any], tokens: str, answer: str) -> None:
    """What transformers make of the model, and how they save it."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(question["folder"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(question["folder"])
    model.save_pretrained(question["saved"])
    tokenizer.save_pretrained(question["saved"])
    ids = {
        f"ids{i}": np.array(tokenizer(read(path))["input_ids"])
        for i, path in enumerate(question["texts"])
    }
    model.generation_config.eos_token_id = None
    prompt = tokenizer(PROMPT, return_tensors="pt")
    with torch.inference_mode():
        logits = model(torch.from_numpy(np.load(tokens))).logits.numpy()
        sample = model.generate(**prompt, max_new_tokens=LENGTH, do_sample=False, pad_token_id=0)
    sample = sample[0, prompt["input_ids"].shape[1] :].numpy()
    found: dict[str, Any] = {"logits": logits, "greedy": sample, **ids}
    np.savez(answer, **found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["peer"]:
        peer(json.loads(sys.argv[2]), *sys.argv[3:])
    else:
        sys.exit(main())
