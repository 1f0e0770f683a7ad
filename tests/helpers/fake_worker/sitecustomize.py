"""Give the workers of a Ray cluster the model of fake_model.py, which needs no TensorFlow.

Python imports this when it starts, if this folder is in PYTHONPATH.
"""

import sys

if any("default_worker" in argument for argument in sys.orig_argv):
    import fake_model

    fake_model.language_model.LanguageModel = fake_model.FakeModel
