"""The model of Hugging Face with the weights of ours."""

import numpy as np


def hugging_face_model(weights_file, **config):
    """A GPT2LMHeadModel.

    Args:
      weights_file: .npz of our variables, by their names.
      config: for GPT2Config.
    Raises: ImportError where torch or transformers is missing.
    """
    import torch
    import transformers

    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config))
    with np.load(weights_file) as weights:
        state = {}
        for name, value in weights.items():
            *scopes, last = name.removeprefix("model/").split("/")
            if scopes and scopes[0] != "ln_f":
                scopes[0] = f"h.{scopes[0][1:]}"
            last = {"w": "weight", "g": "weight", "b": "bias"}.get(last, f"{last}.weight")
            value = value[0] if value.ndim == 3 else value
            state[".".join(["transformer", *scopes, last])] = torch.from_numpy(value)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ["lm_head.weight"], missing  # it is wte
    assert not unexpected, unexpected
    return model
