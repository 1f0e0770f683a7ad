"""The shape of a model."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from user_error import UserError


@dataclasses.dataclass
class HParams:
    """The shape of a model. Fields are integers of at least 1."""

    n_vocab: int = 50257  # distinct tokens, `<|endoftext|>` included
    n_ctx: int = 1024  # positions that the model can look at, at most
    n_embd: int = 768  # width of the residual stream
    n_head: int = 12  # attention heads in a layer; divides n_embd
    n_layer: int = 12  # transformer blocks

    def override_from_dict(self, values: Mapping[str, Any]) -> "HParams":
        """Set the fields named in `values` and return self.

        Raises: UserError for an unknown name or a value that no model can have; self is
        then unchanged.
        """
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(self)})
        if unknown:
            raise UserError(f"unknown hyperparameter {unknown[0]!r}; known are {', '.join(KEYS)}")
        new = dataclasses.replace(self, **values)
        for name, value in dataclasses.asdict(new).items():
            if type(value) is not int or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
        if new.n_embd % new.n_head:
            raise UserError(f"n_head must divide n_embd, got {new.n_head} and {new.n_embd}")
        self.__dict__.update(dataclasses.asdict(new))
        return self

    def values(self) -> dict[str, int]:
        """All fields by name."""
        return dataclasses.asdict(self)

    def get(self, key: str, default: Any = None) -> Any:
        """The field of this name, or `default` if there is none."""
        return self.values().get(key, default)

    def __contains__(self, key: str) -> bool:
        return key in KEYS

    def set_hparam(self, name: str, value: int) -> None:
        """Set one field, as override_from_dict does."""
        self.override_from_dict({name: value})

    def to_json(self, **options: Any) -> str:
        """The fields as a JSON object; `options` are those of json.dumps."""
        return json.dumps(self.values(), **options)

    def parse(self, values: str) -> "HParams":
        """Set fields from text such as "n_ctx=64,n_layer=2", and return self. Raises: UserError."""
        pairs = [part.partition("=") for part in values.split(",") if part.strip()]
        try:
            fields = {name.strip(): int(value) for name, _, value in pairs}
        except ValueError:
            raise UserError(f"expected name=integer,..., got {values!r}") from None
        return self.override_from_dict(fields)

    def n_params(self) -> int:
        """How many numbers the model's variables hold together."""
        block = 12 * self.n_embd**2 + 13 * self.n_embd  # four matrices, their biases, two norms
        embeddings = (self.n_vocab + self.n_ctx) * self.n_embd
        return embeddings + self.n_layer * block + 2 * self.n_embd


KEYS = [field.name for field in dataclasses.fields(HParams)]


def default_hparams() -> HParams:
    """The shape of the released 117M model."""
    return HParams()
