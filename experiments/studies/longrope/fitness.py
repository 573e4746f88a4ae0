"""Computes the losses of candidates, whose factors are inputs of one compiled program.

A candidate's loss is a mean over documents of the target length, in nats per token: of all tokens,
as in the paper (``text_loss``), or of the answers to questions about a needle, as in LongRoPE2
(``needle_loss``). Several candidates run at a time, spread over the devices as rows are.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.evaluation.batches import in_batches, rows_of_pass
from experiments.pretrained.trained import in_place_of_rope
from experiments.results.record import Stored
from experiments.studies.longrope.encoding import Searched
from experiments.studies.longrope.search import Genome
from experiments.training.mesh import replicated, row_shards
from experiments.training.text import token_losses
from posenc_jax import Transformer
from posenc_jax.encodings.lib.double import Double
from posenc_jax.encodings.rotary.rope import RoPE

# Tokens of a needle: half of them ask, and half are the answer.
NEEDLE = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Fitness:
    """Computes the losses of candidates under one model.

    Attributes:
      model, rope: a Transformer under RoPE, which the candidates replace.
      tokens_NL: int ``[N, L]``, the documents.
      last: how many tokens at the end of each are scored.
      attention_factor: multiplies cosine and sine past the start tokens.
      batch_tokens: tokens of one forward pass over all devices. As many candidates run at a time
        as fit with all their documents, but at least one on each device, which then reads some
        of its documents at a time.
    """

    model: Transformer
    rope: RoPE
    tokens_NL: np.ndarray
    last: int
    attention_factor: float
    mesh: Mesh
    batch_tokens: int

    @functools.cached_property
    def compiled(self) -> Callable[..., jax.Array]:
        """Returns the program of all candidates, with all that it has compiled."""
        return jax.jit(self._losses, out_shardings=replicated(self.mesh))

    @property
    def together(self) -> int:
        """Returns the number of candidates in one forward pass, at least one a device."""
        return rows_of_pass(self.batch_tokens, self.tokens_NL[:, 1:].size, self.mesh)

    def __call__(self, genomes: Sequence[Genome]) -> Iterator[float]:
        """Yields the losses of ``genomes`` in their order, ``together`` at a time."""
        factors = Double.of(np.array([genome.factors for genome in genomes]))
        starts = np.array([genome.start_tokens for genome in genomes], np.int32)
        rows = jax.tree.map(np.asarray, (factors, starts))

        def compute(batch):
            return self.compiled(self.model, *batch, self.tokens_NL)

        for losses in in_batches(compute, rows, self.together, self.mesh):
            yield from losses.tolist()

    def _losses(self, model, factors, starts, tokens_NL):
        N, L = tokens_NL.shape
        rows = self.batch_tokens // ((L - 1) * row_shards(self.mesh))
        rows = max(n for n in range(1, N + 1) if N % n == 0 and n <= max(rows, 1))

        def of_candidate(factors, start):
            encoding = Searched(self.rope, factors, start, self.attention_factor)
            under = model.under(in_place_of_rope(model, encoding))

            def of_documents(tokens_BL):
                return token_losses(under, tokens_BL)[:, -self.last :].mean()

            return jax.lax.map(of_documents, tokens_NL.reshape(-1, rows, L)).mean()

        return jax.vmap(of_candidate)(factors, starts)


def text_loss(model: Transformer, rope: RoPE, tokens_NL, **rest) -> Fitness:
    """Returns the fitness of LongRoPE: the loss of all tokens of the documents."""
    return Fitness(model, rope, tokens_NL, tokens_NL.shape[1] - 1, **rest)


def needle_loss(model: Transformer, rope: RoPE, tokens_NL, **rest) -> Fitness:
    """Returns the fitness of LongRoPE2: the loss of the answers alone, see ``with_needles``."""
    return Fitness(model, rope, with_needles(tokens_NL), NEEDLE // 2, **rest)


def with_needles(tokens_NL: np.ndarray) -> np.ndarray:
    """Returns documents that begin with a needle and end with a question about it.

    A needle is a sequence of tokens drawn at random from all documents. The document ends with the
    needle again: its first half asks, and its second half is the answer, ``NEEDLE // 2`` tokens. A
    needle needs no words, so it works for bytes and for any vocabulary.
    """
    N, L = tokens_NL.shape
    rng = np.random.Generator(np.random.Philox(0))
    needles = rng.choice(tokens_NL.reshape(-1), (N, NEEDLE))
    return np.concatenate([needles, tokens_NL[:, : L - 2 * NEEDLE], needles], axis=1)


def remembered(
    fitness: Callable[[list[Genome]], Iterator[float]],
    stored: Stored,
    advance: Callable[[str], None],
) -> Callable[[list[Genome]], Iterator[float]]:
    """Returns ``fitness`` with each loss written to ``stored`` as soon as it is known.

    A search is a function of its seed and of the losses that it is told, so only the losses must be
    kept: a search that is started again takes the same steps, and computes no loss twice.
    ``advance`` is called after each loss with a note of the best so far.
    """
    best = float("inf")

    def losses(genomes):
        nonlocal best
        names = [json.dumps(dataclasses.asdict(genome)) for genome in genomes]
        by_name = dict(zip(names, genomes, strict=True))  # equal genomes are computed once
        unknown = [genome for name, genome in by_name.items() if name not in stored]
        computed = fitness(unknown) if unknown else iter(())
        for name in names:
            loss = stored.get(name, lambda: next(computed))
            best = loss if loss < best else best
            advance(f"best {best:.4f}")
            yield loss

    return losses
