"""The zero-shot tasks of the paper, by name.

Source: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019), section 3.
Where the paper leaves a choice open, the file of the task says what is done here.
"""

from gpt2.evaluation.cbt import measure_cbt
from gpt2.evaluation.lambada import measure_lambada
from gpt2.evaluation.language_modeling import LONG_TEXTS
from gpt2.evaluation.perplexity import OnRead, SavedState
from gpt2.scorer import Scorer

TASKS = ["lambada", "cbt-cn", "cbt-ne", *LONG_TEXTS]


def measure_task(
    name: str, scorer: Scorer, path: str, on_read: OnRead, state: SavedState, key: str = "totals"
) -> dict[str, float]:
    """The results of one of TASKS, by the name of the metric; accuracies are in percent.

    Args:
      path: the task's file; `-` is stdin.
      on_read: called again and again with the number of bytes read since.
      state, key: where the sums over a long text are kept.
    Raises: UserError if the file is not in the task's format.
    """
    if name == "lambada":
        return measure_lambada(scorer, path, on_read)
    if name.startswith("cbt"):
        return measure_cbt(scorer, path, on_read)
    return LONG_TEXTS[name].measure(scorer, path, on_read, state, key)
