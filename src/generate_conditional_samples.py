#!/usr/bin/env python3
"""Continue the texts of a file."""

from gpt2.command_line import read_text, run, unescape
from gpt2.language_model import LanguageModel
from gpt2.sampling.dump import dump
from hparams import UserError, parse_json, require


def continue_model(
    prompts: str,
    model_name: str | None = None,
    seed: int | None = None,
    nsamples: int = 1,
    batch_size: int | None = None,
    length: int | None = None,
    temperature: float = 1,
    top_k: int = 0,
    top_p: float = 1,
    models_dir: str = "models",
    separator: str = "\\n",
    output: str | None = None,
    format: str = "text",
    stop_at_end: bool = True,
    stop: tuple[str, ...] = (),
    shard: str = "1/1",
    device: str = "auto",
    dtype: str = "float32",
) -> None:
    r"""Continue the texts of a file.

    Args:
      prompts: file with the texts; - is standard input. In a .jsonl file each line is a
        JSON object with a `text`.
      separator: what separates the texts in other files; a line end by default. \n\n is a blank
        line.
      nsamples: number of samples of each text; each text is continued once before any is
        continued again. 0 means no limit: until Ctrl-C.
      length: number of tokens in a sample; half of the model's n_ctx by default.
    """
    places, texts = zip(*read_prompts(prompts, separator), strict=True)
    require("nsamples", nsamples, nsamples >= 0, "0 (no limit) or above")
    sampler = LanguageModel(
        model_name=model_name,
        models_dir=models_dir,
        seed=seed,
        batch_size=batch_size,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        device=device,
        dtype=dtype,
    )
    dump(
        sampler,
        last=nsamples * len(texts),
        prompts=texts,
        places=[f"{prompts}, line {line}" for line in places],
        output=output,
        format=format,
        stop_at_end=stop_at_end,
        stop=stop,
        shard=shard,
    )


def read_prompts(path: str, separator: str) -> list[tuple[int, str]]:
    """The texts of a file, each with the number of the line that it begins in.

    CRLF is read as a line feed; empty texts are left out. Raises: UserError if there is none.
    """
    text = read_text(path).replace("\r\n", "\n")
    jsonl = path.endswith(".jsonl")
    separator = "\n" if jsonl else unescape(separator)
    require("separator", repr(separator), separator != "", "some text")
    texts, line = [], 1
    for part in text.removesuffix("\n").split(separator):
        if part.strip() or not jsonl:
            texts.append((line, _text_field(path, line, part) if jsonl else part))
        line += (part + separator).count("\n")
    texts = [(line, text) for line, text in texts if text]
    if not texts:
        raise UserError(f"{path} holds no text to continue")
    return texts


def _text_field(path: str, number: int, line: str) -> str:
    try:
        record = parse_json(line)
        if isinstance(record["text"], str):
            return record["text"]
    except (ValueError, TypeError, KeyError):
        pass
    raise UserError(f'{path}, line {number}: expected a JSON object with a text, {{"text": "..."}}')


if __name__ == "__main__":
    run(continue_model)
