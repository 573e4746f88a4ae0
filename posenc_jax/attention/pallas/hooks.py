"""An encoding's hooks as a Pallas kernel runs them."""

import jax
import jax.numpy as jnp

from posenc_jax.attention.pallas.operands import of_parameters, of_tokens, read_as
from posenc_jax.attention.pallas.program import Program
from posenc_jax.encoding import Tile
from posenc_jax.gather import by_comparison


def leaves_of_sides(tile):
    """What hooks may read of queries and of keys: lists of (array, its axis of tokens)."""
    sides = (
        (tile.q_positions, tile.q_index, tile.q_prepared),
        (tile.k_positions, tile.k_index, tile.k_prepared),
    )
    return tuple(
        [(positions, -1), (index, -1), *((x, 1) for x in jax.tree.leaves(prepared))]
        for positions, index, prepared in sides
    )


def used_leaves(leaves, used, size):
    return [
        of_tokens(x, size, axis) if is_used else None
        for (x, axis), is_used in zip(leaves, used, strict=True)
    ]


class Hooks:
    """``score`` and ``mix`` on a tile of one sequence and one head.

    Attributes:
      read_content: whether they read queries or keys.
      read_output: whether ``mix`` does anything to the sum of values.
      q_used, k_used: which of ``leaves_of_sides`` they read.
    """

    def __init__(self, encoding, tile, v_channels, size):
        structure = jax.tree.structure(tile.q_prepared), jax.tree.structure(tile.k_prepared)
        q_leaves, k_leaves = (
            [
                jax.ShapeDtypeStruct(of_tokens(x, size, axis).shape, read_as(x.dtype))
                for x, axis in side
            ]
            for side in leaves_of_sides(tile)
        )
        parameters, build = jax.tree.flatten(encoding)
        known = parameters, jax.ShapeDtypeStruct((1,), jnp.int32), jnp.float32(0)

        def hook(name):
            def run(known, given):
                parameters, heads, scale = known
                first, q, k, (q_positions, q_index, *q_prepared), k_leaves = given
                k_positions, k_index, *k_prepared = k_leaves
                one_head = Tile(
                    *(q, k, q_positions, k_positions, q_index, k_index),
                    q_prepared=jax.tree.unflatten(structure[0], q_prepared),
                    k_prepared=jax.tree.unflatten(structure[1], k_prepared),
                    scale=scale,
                    heads=heads,
                    num_heads=tile.num_heads,
                )
                with by_comparison():
                    return getattr(jax.tree.unflatten(build, parameters), name)(*first, one_head)

            return run

        def floats(*shape):
            return jax.ShapeDtypeStruct(shape, jnp.float32)

        q, k = (floats(1, size, 1, x.shape[-1]) for x in (tile.q, tile.k))
        logits, out = floats(1, 1, size, size), floats(1, size, 1, v_channels)
        sides = q, k, q_leaves, k_leaves
        self._score = Program(hook("score"), known, ((logits,), *sides))
        self._mix = Program(hook("mix"), known, ((out, logits), *sides))
        score, mix = self._score.used, self._mix.used
        self.read_content = any(score[1:3] + mix[2:4])
        self.read_output = not self._mix.returns_first
        used = [a or b for a, b in zip(score[3:], mix[4:], strict=True)]
        self.q_used, self.k_used = used[: len(q_leaves)], used[len(q_leaves) :]

    def ahead(self, encoding, tile):
        """What the hooks make of parameters, for each head."""
        scale = jnp.asarray(tile.scale, jnp.float32)

        def of_head(head):
            known = jax.tree.leaves(encoding), head[None], scale
            return {
                "scale": scale,
                "score": self._score.ahead(known),
                "mix": self._mix.ahead(known),
            }

        return jax.tree.map(of_parameters, jax.vmap(of_head)(tile.heads))

    def score(self, ahead, logits, q_side, k_side):
        sides = q_side["q"], k_side["k"], *q_side["leaves"], *k_side["leaves"]
        (logits,) = self._score.inside(ahead["score"], (logits, *sides))
        return logits

    def mix(self, ahead, out, weights, q_side, k_side):
        sides = q_side["q"], k_side["k"], *q_side["leaves"], *k_side["leaves"]
        (out,) = self._mix.inside(ahead["mix"], (out, weights, *sides))
        return out
