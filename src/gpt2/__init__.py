"""GPT-2 from Python: `lm = gpt2.load("117M")`, then lm.generate, lm.stream, lm.score, lm.logits."""

from gpt2.language_model import LanguageModel, load
from hparams import DamagedModelError, UserError

__all__ = ["DamagedModelError", "LanguageModel", "UserError", "load"]
