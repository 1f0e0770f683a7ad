"""Hugging Face's config.json: the shape of a model, and whether its network is GPT-2's."""

from pathlib import Path
from typing import Any

from gpt2.conversion.folder import read_object
from hparams import HParams
from user_error import UserError

# The names of HParams' fields in the file. A field that is missing has the same default in both.
NAMES = {
    "n_vocab": ("vocab_size",),
    "n_ctx": ("n_positions", "max_position_embeddings"),
    "n_embd": ("n_embd", "hidden_size"),
    "n_head": ("n_head", "num_attention_heads"),
    "n_layer": ("n_layer", "num_hidden_layers"),
}
# The settings with which the network is that of model.py; they are the file's defaults, too.
FIXED_SETTINGS: dict[str, Any] = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")  # one function under three names
EMPTY = ("quantization_config", "auto_map", "pruned_heads")
ARCHITECTURES = ("GPT2LMHeadModel", "GPT2Model")


def read_config(folder: Path) -> tuple[HParams, dict[str, Any]]:
    """The shape of a model in Hugging Face's format, and all of its config.json.

    Raises: UserError if it is not GPT-2's network; the message names what differs.
    """
    path = folder / "config.json"
    config = read_object(path)

    def require(name: str, value: Any, *allowed: Any) -> None:
        if value not in allowed:
            wanted = " or ".join(map(repr, allowed))
            raise UserError(f"{path}: {name} is {value!r}; this code can only use {wanted}")

    require("model_type", config.get("model_type"), "gpt2")
    architectures = config.get("architectures") or []
    for architecture in architectures if isinstance(architectures, list) else [architectures]:
        require("architectures", architecture, *ARCHITECTURES)
    for name, value in FIXED_SETTINGS.items():
        allowed = ACTIVATIONS if name == "activation_function" else (value,)
        require(name, config.get(name, value), *allowed)
    for name in EMPTY:
        require(name, config.get(name) or None, None)
    try:
        hparams = HParams().override_from_dict(_shape_fields(config))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    require("n_inner", config.get("n_inner"), None, 4 * hparams.n_embd)
    return hparams, config


def _shape_fields(config: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for field, names in NAMES.items():
        for name in names:
            if name in config and fields.setdefault(field, config[name]) != config[name]:
                raise UserError(f"{' and '.join(names)} differ")
    return fields


def make_config(hparams: HParams, end_of_text: int) -> dict[str, Any]:
    """The content of config.json for a model whose `<|endoftext|>` has the id `end_of_text`."""
    return {
        "architectures": [ARCHITECTURES[0]],
        "model_type": "gpt2",
        **{names[0]: hparams.get(field) for field, names in NAMES.items()},
        "n_ctx": hparams.n_ctx,  # a former name, which llama.cpp's converter reads
        "n_inner": None,
        **FIXED_SETTINGS,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.1),  # keras-hub needs them
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "dtype": "float32",
    }
