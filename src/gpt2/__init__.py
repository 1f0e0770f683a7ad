"""GPT-2 from Python: `lm = gpt2.load("117M")`, then lm.generate, lm.stream, lm.score, lm.logits."""

from gpt2.installation import check_installation

check_installation()  # before the imports that need packages

from gpt2.language_model import LanguageModel, load  # noqa: E402
from user_error import DamagedModelError, UserError  # noqa: E402

__all__ = ["DamagedModelError", "LanguageModel", "UserError", "load"]
