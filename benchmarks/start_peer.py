"""Another engine, as a program that bench_start.py times: it prints tokens as it makes them.

start_peer.py transformers|llama.cpp FOLDER PROMPT N_PROMPT TOKENS TOP_K
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace


class Printer:
    """What transformers hands its tokens to."""

    def __init__(self, tokenizer):
        self.tokenizer, self.begun = tokenizer, False

    def put(self, ids):
        if self.begun:  # before that, the prompt
            print(self.tokenizer.decode(ids), end="", flush=True)
        self.begun = True

    def end(self):
        print()


def transformers(folder, prompt, n_prompt, tokens, top_k):
    """Load a folder with its tokenizer, as most users do."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "hf")
    model.generation_config.eos_token_id = None
    inputs = tokenizer(prompt, return_tensors="pt")
    assert inputs["input_ids"].shape[1] == n_prompt
    draw = {"do_sample": True, "top_k": top_k, "pad_token_id": 0}
    model.generate(**inputs, max_new_tokens=tokens, streamer=Printer(tokenizer), **draw)


def llama_cpp(folder, prompt, n_prompt, tokens, top_k):
    """Without a vocabulary: another prompt of as many tokens."""
    from llama import LlamaCpp

    hparams = SimpleNamespace(**json.loads((folder / "hparams.json").read_text(encoding="utf-8")))
    engine = LlamaCpp(folder, hparams, "float32", top_k)
    for _ in engine.stream([[300] * n_prompt], tokens, greedy=False):
        print(" x", end="", flush=True)


if __name__ == "__main__":
    _, engine, folder, prompt, *numbers = sys.argv
    run = {"transformers": transformers, "llama.cpp": llama_cpp}[engine]
    run(Path(folder), prompt, *map(int, numbers))
