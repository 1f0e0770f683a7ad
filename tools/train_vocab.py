"""Learn a byte-level BPE vocabulary from a text, and write it in the released format.

    python tools/train_vocab.py --dataset FILE --n_vocab 1025 --output models/NAME

Needs the `tokenizers` package of requirements-dev.txt.
"""

import argparse
import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", type=Path, required=True, help="text to learn from, UTF-8")
    parser.add_argument("--n_vocab", type=int, required=True, help="tokens, <|endoftext|> included")
    parser.add_argument("--output", type=Path, required=True, help="folder of the model")
    flags = parser.parse_args()
    if not flags.dataset.is_file():
        parser.error(f"--dataset {flags.dataset}: no such file")
    for path in (flags.output / "encoder.json", flags.output / "vocab.bpe"):
        if path.exists():
            parser.error(f"{path} exists; choose another --output, or remove the file")

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        [flags.dataset.read_text(encoding="utf-8")],
        trainers.BpeTrainer(
            vocab_size=flags.n_vocab - 1,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    learned = json.loads(tokenizer.to_str())["model"]
    encoder = dict(sorted(learned["vocab"].items(), key=lambda item: item[1]))
    encoder["<|endoftext|>"] = len(encoder)  # the last id, as in the release

    flags.output.mkdir(parents=True, exist_ok=True)
    (flags.output / "encoder.json").write_text(json.dumps(encoder) + "\n", encoding="utf-8")
    merges = [" ".join(merge) for merge in learned["merges"]]
    (flags.output / "vocab.bpe").write_text(
        "\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8", newline="\n"
    )
    print(f"{len(encoder)} tokens, {len(merges)} merges in {flags.output}")


if __name__ == "__main__":
    main()
