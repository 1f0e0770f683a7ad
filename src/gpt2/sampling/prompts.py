"""The texts that a dump continues."""

from gpt2.text_stream import text_chunks, text_record, unescape
from user_error import UserError, require

Prompt = tuple[str, str | None]  # its place, for error messages, and its text
NO_PROMPT: list[Prompt] = [("", None)]  # samples start from `<|endoftext|>`


def read_prompts(path: str, separator: str = "\\n") -> list[Prompt]:
    r"""The texts of a file, each with its place, such as "prompts.txt, line 3".

    CRLF is read as a line feed, one line feed at the end of the file is dropped, and empty texts
    are left out.

    Args:
      path: a .jsonl file has a JSON object with a `text` in each line; - is standard input.
      separator: what stands between the texts in other files. \n is a line end.
    Raises: UserError if a text cannot be read, or there is none.
    """
    jsonl = path.endswith(".jsonl")
    separator = "\n" if jsonl else unescape(separator)
    require("separator", repr(separator), separator != "", "some text")
    whole = "".join(text_chunks(path)).replace("\r\n", "\n").removesuffix("\n")
    prompts: list[Prompt] = []
    line = 1
    for part in whole.split(separator):
        place = f"{path}, line {line}"
        text = part.strip() if jsonl else part  # an empty line is not a record
        if text and jsonl:
            text = text_record(place, text)["text"]
        if text:
            prompts.append((place, text))
        line += (part + separator).count("\n")
    if not prompts:
        raise UserError(f"{path} holds no text to continue")
    return prompts
