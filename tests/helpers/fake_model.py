"""A model that needs no TensorFlow, for tests of what the scripts do around one.

As a program, `fake_model.py NAME FLAGS`, it runs the script src/NAME.py with this model.
"""

import runpy
import sys
import time

from gpt2 import language_model


class FakeModel(language_model.LanguageModel):
    """Its samples are their seed and number in brackets and the prompt again: `[7.1] ROMEO:`.

    A sample of a prompt that begins with "endless" has no end.
    """

    def _start_over(self, seed):
        super()._start_over(seed)
        self.seed = 7 if seed is None else seed

    def prepare(self, at_once=False):
        pass

    def prepare_in_background(self, failed):
        pass

    def stream_tokens(self, contexts, numbers, stop_at_end=False, at_once=False):
        texts = [self.encoder.decode(context) for context in contexts]
        yield [self.encoder.encode(f"[{self.seed}.{number}]") for number in numbers]
        yield [self.encoder.encode(f" {text}") for text in texts]
        while texts[0].startswith("endless"):
            time.sleep(0.01)
            yield [self.encoder.encode(" more") for _ in numbers]


if __name__ == "__main__":
    language_model.LanguageModel = FakeModel
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__")
