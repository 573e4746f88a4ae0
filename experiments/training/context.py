"""Lets a model attend over the mesh axis ``context`` by a given strategy."""

import dataclasses
from typing import Any

import jax

from posenc_jax.attention import IMPLEMENTATIONS, Implementation, choose
from posenc_jax.attention.context import lies_over_context


@dataclasses.dataclass(frozen=True)
class _By:
    """Attends by a strategy where tokens lie over ``context``, and otherwise by default."""

    strategy: str

    def __call__(self, encoding, pairs, v_BSKC, rule) -> jax.Array:
        attend: Implementation = IMPLEMENTATIONS[self.strategy]
        if not lies_over_context(pairs):
            attend = choose(encoding, pairs, v_BSKC, rule)
        return attend(encoding, pairs, v_BSKC, rule)


def under(model: Any, context_by: str) -> Any:
    """Returns the model with a strategy for attention, unless it has an implementation already."""
    if not context_by or model.implementation is not None:
        return model
    other = jax.tree.map(lambda x: x, model)
    other.implementation = _By(context_by)
    return other
