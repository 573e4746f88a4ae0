"""Tests properties of the schemes in the registry: a new one is tested because it is listed.

Where schemes have the same functions with other constants, as PI and RoPE, the first stands for
all: ``test_float64`` compares each of them with its equation.
"""

import chex
import common
import numpy as np
import pytest
import schemes
from common import close, far
from probe import FEW, FIRST, QUERY, SECOND, SHARD, TILES, probe

each_program = pytest.mark.parametrize("name", common.one_of_each_program())


@each_program
def test_every_number_is_finite(name):
    """Also past eight times the training length, where tokens still differ."""
    outputs = vars(probe(name)) | {"rounded": None}  # no type of NumPy
    chex.assert_tree_all_finite(outputs)
    for where in ("shuffled", "far"):
        assert np.ptp(outputs["placed"][where], axis=1).min() > 0


# Positions


@each_program
def test_shift_of_all_positions(name):
    placed, invariant = probe(name).placed, schemes.ALL[name].shift_invariant
    assert far(placed["shifted"], placed["shuffled"]) != invariant
    if invariant:
        close(placed["shifted"], placed["shuffled"])
        close(placed["distant"], placed["shuffled"])


@each_program
def test_order_shows(name):
    """Other positions for the same tokens give another output, where positions are read."""
    placed = probe(name).placed
    assert far(placed["reversed"], placed["shuffled"]) == schemes.ALL[name].reads_positions


@each_program
def test_positions_of_text(name):
    """They are known while the program is traced, and may take another path."""
    outputs, expected = probe(name), probe(name).placed["text"]
    close(outputs.text, expected)
    if name in TILES:
        close(outputs.few, expected[:, FEW[0] :][:, : FEW[1]])


# Causality and documents


@each_program
def test_causality_by_gradient(name):
    """An output depends on the tokens written up to it, whatever their positions."""
    by_token = np.abs(probe(name).by_input["one"]).max(axis=-1)
    assert (by_token[: QUERY + 1] > 0).all()
    assert (by_token[QUERY + 1 :] == 0).all()


@each_program
def test_packed_documents_are_separate_documents(name):
    """The second document is longer than a training sequence, so that a scheme may adapt to it."""
    documents = probe(name).documents
    close(documents["packed"][:FIRST], documents["first"][:FIRST])
    close(documents["packed"][FIRST:-1], documents["second"][:SECOND])


@each_program
def test_one_token(name):
    """All of the weight is on the token's own value, to which a scheme may add a position's."""
    outputs, scheme = probe(name), schemes.ALL[name]
    x_1D = np.asarray(outputs.embedded["packed"][-1:], np.float64)
    weights = common.parameters_float64(outputs.encoding)
    scheme.equations.observe(x_1D, scheme.overrides, weights)
    value = np.einsum("td,dhc->thc", x_1D, common.projections()[2])
    others = np.ones((common.HEADS, 1, 1)), np.zeros(1), scheme.overrides, weights
    close(outputs.documents["packed"][-1:], scheme.equations.values(value, *others))


# Precision, parts and parameters


@each_program
def test_bfloat16(name):
    """Positions past 256 are not bfloat16 numbers; the encoding must not make them so."""
    for where, rounded in probe(name).rounded.items():
        exact = probe(name).placed[where]
        assert rounded.dtype == "bfloat16"
        assert np.abs(np.float32(rounded) - exact).mean() < 0.02 * np.abs(exact).mean()


@each_program
def test_a_query_alone_and_some_heads_alone(name):
    """A step of decoding, and a shard of the heads, give what they give among all others."""
    outputs = probe(name)
    whole = np.concatenate([*outputs.placed.values()])
    close(outputs.last, whole[:, -1:])
    if not schemes.ALL[name].mixes_heads:
        close(outputs.shard, whole[:, :, SHARD])


@pytest.mark.parametrize(
    "name", [name for name in common.one_of_each_program() if not schemes.ALL[name].mixes_keys]
)
def test_keys_rotated_ahead(name):
    """A cache may keep the keys of each token rotated as they were when the token came."""
    close(probe(name).in_pieces, np.concatenate([*probe(name).placed.values()]))


@pytest.mark.parametrize("name", common.one_of_each_tile())
def test_grouped_queries(name):
    close(probe(name).grouped, probe(name).repeated)


@each_program
def test_every_parameter_has_a_gradient(name):
    common.assert_every_parameter_is_seen(name, probe(name).by_parameters)
