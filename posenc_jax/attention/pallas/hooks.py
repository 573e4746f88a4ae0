"""Runs the hooks of an encoding on the tiles of a Pallas kernel."""

import dataclasses

import jax
import jax.numpy as jnp

from posenc_jax.attention.pallas.lookup import COMPARISON
from posenc_jax.attention.pallas.operands import of_parameters, of_tokens, read_as
from posenc_jax.attention.pallas.program import Program
from posenc_jax.encoding import Tile

# The TPU's compiler takes 21 seconds for 5,700 operations, and more than 9 minutes for their
# gradients. Shaw, the largest that is accepted in its published form, has 720.
_MOST_OPERATIONS = 2000


def leaves_of(tokens):
    """Returns the arrays of tokens that hooks may read, with the tokens along axis 1."""
    return jax.tree.leaves(_readable(tokens))


def _readable(tokens):
    """Returns the tokens with their order written out, and without the segments.

    The kernel's mask applies the segments, and no hook that runs in a kernel reads them.
    """
    return dataclasses.replace(tokens, index=tokens.order(), segment_ids=None)


def used_leaves(tokens, used, size):
    """Returns the leaves that hooks read, and None for the others."""
    return [
        of_tokens(x, size) if is_used else None
        for x, is_used in zip(leaves_of(tokens), used, strict=True)
    ]


class Hooks:
    """Runs ``score`` and ``mix`` on a tile of one sequence and one head.

    Raises a ValueError if they consist of more operations than a compiler copes with.

    Attributes:
      read_content: whether the hooks read queries or keys.
      read_output: whether ``mix`` changes the sum of values.
      q_used, k_used: which of ``leaves_of`` each side the hooks read.
    """

    def __init__(self, encoding, tile, v_channels, size):
        sides = tile.q_tokens, tile.k_tokens
        structures = [jax.tree.structure(_readable(tokens)) for tokens in sides]
        q_leaves, k_leaves = (
            [
                jax.ShapeDtypeStruct(of_tokens(x, size).shape, read_as(x.dtype))
                for x in leaves_of(tokens)
            ]
            for tokens in sides
        )
        parameters, build = jax.tree.flatten(encoding)
        known = parameters, jax.ShapeDtypeStruct((1,), jnp.int32), jnp.float32(0)

        def hook(name):
            def run(known, given):
                parameters, heads, scale = known
                first, q, k, q_leaves, k_leaves = given
                one_head = Tile(
                    q=q,
                    k=k,
                    q_tokens=jax.tree.unflatten(structures[0], q_leaves),
                    k_tokens=jax.tree.unflatten(structures[1], k_leaves),
                    scale=scale,
                    heads=heads,
                    num_heads=tile.num_heads,
                    lookup=COMPARISON,
                    causal=tile.causal,
                )
                return getattr(jax.tree.unflatten(build, parameters), name)(*first, one_head)

            return run

        def floats(*shape):
            return jax.ShapeDtypeStruct(shape, jnp.float32)

        q, k = (floats(1, size, 1, x.shape[-1]) for x in (tile.q, tile.k))
        logits, out = floats(1, 1, size, size), floats(1, size, 1, v_channels)
        given = q, k, q_leaves, k_leaves
        self._score = Program(hook("score"), known, ((logits,), *given))
        self._mix = Program(hook("mix"), known, ((out, logits), *given))
        count = self._score.operations + self._mix.operations
        if count > _MOST_OPERATIONS:
            raise ValueError(
                f'implementation="pallas" cannot run {type(encoding).__name__}, whose hooks take '
                f"{count} operations in a kernel, and compilers cannot cope with more than "
                f'{_MOST_OPERATIONS}; use "blockwise"'
            )
        score, mix = self._score.used, self._mix.used
        self.read_content = any(score[1:3] + mix[2:4])
        self.read_output = not self._mix.returns_first
        used = [a or b for a, b in zip(score[3:], mix[4:], strict=True)]
        self.q_used, self.k_used = used[: len(q_leaves)], used[len(q_leaves) :]

    def ahead(self, encoding, tile):
        """Returns what the hooks compute from parameters alone, for each head."""
        scale = jnp.asarray(tile.scale, jnp.float32)

        def of_head(head):
            known = jax.tree.leaves(encoding), head[None], scale
            return {
                "scale": scale,
                "score": self._score.ahead(known),
                "mix": self._mix.ahead(known),
            }

        heads = jnp.arange(tile.num_heads) if tile.heads is None else tile.heads
        return jax.tree.map(of_parameters, jax.vmap(of_head)(heads))

    def score(self, ahead, logits, q_side, k_side):
        sides = q_side["q"], k_side["k"], *q_side["leaves"], *k_side["leaves"]
        (logits,) = self._score.inside(ahead["score"], (logits, *sides))
        return logits

    def mix(self, ahead, out, weights, q_side, k_side):
        sides = q_side["q"], k_side["k"], *q_side["leaves"], *k_side["leaves"]
        (out,) = self._mix.inside(ahead["mix"], (out, weights, *sides))
        return out
