"""Hugging Face's config.json: the shape of a model, and whether its network is GPT-2's."""

from pathlib import Path
from typing import Any

from gpt2.conversion.folder import read_object
from hparams import HParams
from user_error import UserError

# The names of HParams' fields in the file. A field that is missing has the same default in both.
NAMES = {
    "n_vocab": "vocab_size",
    "n_ctx": "n_positions",
    "n_embd": "n_embd",
    "n_head": "n_head",
    "n_layer": "n_layer",
}
# Settings with which the network is that of model.py. The first value is the default of the file.
GPT2_SETTINGS: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "architectures": (["GPT2LMHeadModel"], ["GPT2Model"], None),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),  # one function
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
    "quantization_config": (None,),
}


def read_config(folder: Path) -> tuple[HParams, dict[str, Any]]:
    """The shape of a model in Hugging Face's format, and all of its config.json.

    Raises: UserError if it is not GPT-2's network; the message names what differs.
    """
    path = folder / "config.json"
    config = read_object(path)
    fields = {field: config[name] for field, name in NAMES.items() if name in config}
    try:
        hparams = HParams().override_from_dict(fields)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for name, allowed in (GPT2_SETTINGS | {"n_inner": (None, 4 * hparams.n_embd)}).items():
        value = config.get(name, allowed[0])
        if value not in allowed:
            wanted = " or ".join(map(repr, allowed))
            raise UserError(f"{path}: {name} is {value!r}; this code can only use {wanted}")
    return hparams, config


def make_config(hparams: HParams, end_of_text: int) -> dict[str, Any]:
    """The content of config.json for a model whose `<|endoftext|>` has the id `end_of_text`."""
    settings = {name: allowed[0] for name, allowed in GPT2_SETTINGS.items()}
    del settings["quantization_config"]  # transformers takes any value as a sign of quantization
    return {
        **settings,
        **{name: hparams.get(field) for field, name in NAMES.items()},
        "n_ctx": hparams.n_ctx,  # a former name, which llama.cpp's converter reads
        "n_inner": None,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.1),  # keras-hub needs them
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "dtype": "float32",
    }
