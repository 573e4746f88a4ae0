"""Tests properties of all schemes in the registry: a new scheme is tested because it is listed."""

import dataclasses
import functools

import chex
import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import schemes
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import posenc_jax
from posenc_jax import HeadShard
from posenc_jax.positions import packed, text
from posenc_jax.registry import own_keywords

each_scheme = pytest.mark.parametrize("name", common.SCHEMES)
each_program = pytest.mark.parametrize("name", common.one_of_each_program())
each_kind = pytest.mark.parametrize("name", common.one_of_each_kind())
each_mesh = pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])

B, T = 2, 24
TOKEN_IDS = np.arange(B * T, dtype=np.int32).reshape(B, T)
UNUSED_ID = B * T + 3


def shuffled(limit: int = 32) -> np.ndarray:
    """Returns int32 ``[B, T]`` positions below ``limit``, in another order in every row."""
    rng = np.random.default_rng(limit)
    return np.stack([rng.choice(limit, T, replace=False) for _ in range(B)]).astype(np.int32)


def residual(length: int = T, seed: int = 0) -> np.ndarray:
    return 0.5 * common.normal(seed, B, length, common.WIDTH)


def heads_of(seed: int, num_heads: int = common.HEADS, length: int = T) -> np.ndarray:
    return common.normal(seed, B, length, num_heads, common.HEAD_DIM)


def tokens_of(encoding, positions, segment_ids=None, length=None):
    """Returns the tokens of a layer whose input is ``residual``."""
    tokens = encoding.tokens(positions, segment_ids, length=length)
    return tokens.observed(encoding, jnp.asarray(residual(tokens.count)))


@jax.jit
def attend(encoding, q, k, v, positions, segment_ids=None):
    tokens = tokens_of(encoding, positions, segment_ids)
    return posenc_jax.attend(encoding, q, k, v, tokens)


def close(actual, expected, rtol=1e-5, atol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def far(actual, expected) -> bool:
    return float(np.abs(np.asarray(actual) - np.asarray(expected)).max()) > 1e-3


def close_trees(actual, expected, rtol=2e-4, atol=1e-4):
    """Compares leaf by leaf, to ``atol`` of the largest number in the leaf."""
    pairs = zip(common.parameter_paths(actual), common.parameter_paths(expected), strict=True)
    for (path, a), (_, b) in pairs:
        a, b = np.asarray(a), np.asarray(b)
        scale = max(1.0, np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol * scale, err_msg=".".join(path))


# Lengths


@each_scheme
def test_eight_times_the_training_length(name):
    length = 8 * common.TRAIN_LENGTH
    long = common.attention(common.build(name), residual(length), text(length))
    chex.assert_tree_all_finite(long)
    assert np.ptp(long, axis=1).min() > 0


@each_program
def test_one_token(name):
    """All of the weight is on the token's own value, to which a scheme may add a position's."""
    encoding = common.build(name)

    @jax.jit
    def run(encoding, x_BTD):
        embedded = encoding.embed(x_BTD, encoding.tokens(text(1)))
        return common.attention(encoding, x_BTD, text(1)), embedded

    one, embedded = run(encoding, residual(1))
    only_value = np.einsum("btd,dhc->bthc", embedded, common.projections()[2])
    scheme, weights = schemes.ALL[name], common.parameters_float64(encoding)
    attention, position = np.ones((common.HEADS, 1, 1)), np.zeros(1)
    for x, row, value in zip(np.asarray(embedded), one, only_value, strict=True):
        scheme.equations.observe(x, scheme.overrides, weights)
        others = attention, position, scheme.overrides, weights
        close(row, scheme.equations.values(value, *others))


# Positions


@each_scheme
def test_shift_of_all_positions(name):
    encoding, scheme = common.build(name), schemes.ALL[name]
    x_BTD, positions = residual(), shuffled(25)
    # Given, or a shift would be a longer sequence to a scheme that adapts to it.
    output = common.attention(encoding, x_BTD, positions, length=64)
    shifted = common.attention(encoding, x_BTD, positions + 7, length=64)
    assert far(shifted, output) != scheme.shift_invariant
    if scheme.shift_invariant:
        close(shifted, output)
        distant = positions + np.int32(scheme.distant)
        close(common.attention(encoding, x_BTD, distant, length=64), output)


@each_scheme
def test_order_shows(name):
    """Other positions for the same tokens give another output, where positions are read."""
    encoding = common.build(name)
    x_BTD, positions = residual(), shuffled()
    output = common.attention(encoding, x_BTD, positions, length=64)
    shows = far(common.attention(encoding, x_BTD, positions[:, ::-1], length=64), output)
    assert shows == schemes.ALL[name].reads_positions


@each_program
def test_positions_shared_by_the_batch(name):
    encoding = common.build(name)
    positions = shuffled()[:1]
    each_row = np.broadcast_to(positions, (B, T))
    shared = common.attention(encoding, residual(), positions, length=64)
    close(shared, common.attention(encoding, residual(), each_row, length=64))


# Causality and documents


@jax.jit
def layer(encoding, x_BTD, positions, segment_ids, weights, weights_BTHC):
    """Returns attention, and the gradients of a weighted sum of it by parameters and input."""

    def loss(encoding, x_BTD):
        output = common.attention(encoding, x_BTD, positions, segment_ids, weights=weights)
        return (output * weights_BTHC).sum(), output

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(encoding, x_BTD)


def arguments_of_layer():
    """Returns what ``layer`` takes beside the encoding, the tokens in two documents each."""
    segment_ids = np.sort(shuffled() % 2, axis=1)
    weights_BTHC = heads_of(7)
    return [residual(), shuffled(), segment_ids, common.projections(), weights_BTHC]


@each_program
def test_causality_by_gradient(name):
    """An output depends on the tokens written up to it, whatever their positions."""
    query = 10
    x_BTD, positions, segment_ids, weights, weights_BTHC = arguments_of_layer()
    segment_ids, weights_BTHC = 0 * segment_ids, 0 * weights_BTHC
    weights_BTHC[0, query] = heads_of(7)[0, query]
    arguments = x_BTD, positions, segment_ids, weights, weights_BTHC
    _, (_, gradient) = layer(common.build(name), *arguments)
    by_token = np.abs(gradient).max(axis=-1)
    assert (by_token[0, : query + 1] > 0).all()
    assert (by_token[0, query + 1 :] == 0).all()
    assert (by_token[1] == 0).all()


@each_kind
def test_causality_of_a_model_by_gradient(name):
    query = 10
    weights_BTV = np.zeros((B, T, common.VOCAB), np.float32)
    # The output layer is tied: an id that is no input keeps its gradient out of the inputs' rows.
    weights_BTV[0, query, UNUSED_ID] = 1.0
    model = common.build_model(name)
    _, gradients = common.loss_and_gradients(model, TOKEN_IDS, shuffled(), weights_BTV)
    by_token = np.abs(gradients.embedding[...]).max(axis=-1)
    assert (by_token[TOKEN_IDS[0, : query + 1]] > 0).all()
    assert (by_token[TOKEN_IDS[0, query + 1 :]] == 0).all()
    assert (by_token[TOKEN_IDS[1]] == 0).all()


@each_program
def test_packed_documents_are_separate_documents(name):
    """The second document is longer than a training sequence, so that a scheme may adapt to it."""
    encoding, x_BTD = common.build(name), residual(T + 40)
    segment_ids = np.repeat([3, 5], (T, 40))[None]
    positions = np.asarray(packed(jnp.asarray(segment_ids)))
    length = 40 if schemes.ALL[name].depends_on_batch else None
    together = common.attention(encoding, x_BTD, positions, segment_ids, length)
    first = common.attention(encoding, x_BTD[:, :T], text(T), length=length or T)
    second = common.attention(encoding, x_BTD[:, T:], text(40), length=length)
    close(together[:, :T], first)
    close(together[:, T:], second)


@pytest.mark.slow
def test_a_model_packs_documents_too():
    model = common.build_model("dynamic_ntk")
    segment_ids = np.repeat([0, 1], (T - 9, 9))[None]
    positions = np.asarray(packed(jnp.asarray(segment_ids))) * 3
    together = common.forward(model, TOKEN_IDS, positions, segment_ids)
    last = common.forward(model, TOKEN_IDS[:, -9:], positions[:, -9:])
    close(together[:, -9:], last, atol=1e-4)
    assert far(together, common.forward(model, TOKEN_IDS, positions))


# Precision


@each_scheme
def test_bfloat16_attention(name):
    """Positions past 256 are not bfloat16 numbers; the encoding must not make them so."""
    encoding, x_BTD = common.build(name), residual()
    for start in (0, 1001):
        positions = shuffled() + np.int32(start)
        exact = common.attention(encoding, x_BTD, positions, length=start + 64)
        rounded = common.attention(
            encoding, x_BTD.astype(jnp.bfloat16), positions, length=start + 64
        )
        assert rounded.dtype == jnp.bfloat16
        error = np.abs(rounded.astype(np.float32) - exact).mean() / np.abs(exact).mean()
        assert error < 0.02


@each_kind
def test_bfloat16_model(name):
    exact = common.forward(common.build_model(name), TOKEN_IDS, shuffled())
    rounded_model = common.build_model(name, dtype="bfloat16")
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(rounded_model))
    rounded = common.forward(rounded_model, TOKEN_IDS, shuffled())
    assert rounded.dtype == jnp.float32
    assert 0 < np.abs(rounded - exact).mean() / np.abs(exact).mean() < 0.05


# Heads


@jax.jit
def in_parts(encoding, q, k, v, positions, heads):
    """Returns attention, that of the last query alone, and that of some of the heads alone."""
    tokens = tokens_of(encoding, positions, length=50)
    whole = posenc_jax.attend(encoding, q, k, v, tokens)
    last = posenc_jax.attend(encoding, q[:, -1:], k, v, tokens.part(T - 1, 1), tokens)
    if heads is None:
        return whole, last, whole
    shard, parts = HeadShard(encoding, heads, common.HEADS), (x[:, :, heads] for x in (q, k, v))
    return whole, last, posenc_jax.attend(shard, *parts, tokens)


@each_program
def test_a_query_alone_and_some_heads_alone(name):
    """A step of decoding, and a shard of the heads, give what they give among all others."""
    encoding, sides = common.build(name), [heads_of(seed) for seed in range(3)]
    if schemes.ALL[name].mixes_heads:
        whole, last, _ = in_parts(encoding, *sides, shuffled(), None)
        close(last, whole[:, -1:])
        return
    for heads in (np.array([0, 1]), np.array([2, 3]), np.array([3, 1])):
        whole, last, some = in_parts(encoding, *sides, shuffled(), heads)
        close(last, whole[:, -1:])
        close(some, whole[:, :, heads])


@each_kind
def test_keys_turned_ahead(name):
    """A cache may keep the keys of each token turned as they were when the token was read."""
    encoding, (q, k, v) = common.build(name), (heads_of(seed) for seed in range(3))

    @functools.partial(jax.jit, static_argnames="length")
    def in_pieces_and_at_once(encoding, q, k, v, length):
        tokens, parts = tokens_of(encoding, shuffled(), length=length), []
        for start in range(0, T, T // 2):
            piece = (x[:, start : start + T // 2] for x in (k, v))
            part = tokens.part(start, T // 2)
            parts.append(posenc_jax.rotate_keys(encoding, *piece, part, num_heads=common.HEADS))
        sides = [jnp.concatenate([part[i] for part in parts], axis=1) for i in (0, 1)]
        in_pieces = posenc_jax.attend(encoding, q, *sides, tokens, tokens.rotated())
        return in_pieces, posenc_jax.attend(encoding, q, k, v, tokens)

    mixes = name == "kv_shift"
    reads_length = common.reads_length(name)
    if mixes or reads_length:
        with pytest.raises(ValueError, match="rotates all keys again"):
            in_pieces_and_at_once(encoding, q, k, v, None)
    if mixes:
        return
    close(*in_pieces_and_at_once(encoding, q, k, v, 64 if reads_length else None))


def test_keys_that_are_not_turned_as_their_tokens_say():
    encoding = common.build("pope", trained=False)
    q, k, v = (heads_of(seed) for seed in range(3))
    tokens = tokens_of(encoding, shuffled())
    keys = tokens.rotated()
    with pytest.raises(ValueError, match="keys have 8 channels and rotated queries 16"):
        posenc_jax.attend(encoding, q, k, v, tokens, keys)
    alone = dataclasses.replace(keys, stamp=None)
    with pytest.raises(ValueError, match="q_tokens were not prepared for PoPE"):
        posenc_jax.attend(encoding, q, k, v, alone, keys)


@each_program
def test_grouped_queries(name):
    encoding = common.build(name, num_kv_heads=2)
    q, k, v = heads_of(0), heads_of(1, num_heads=2), heads_of(2, num_heads=2)
    grouped = attend(encoding, q, k, v, shuffled())
    repeated = attend(encoding, q, *(np.repeat(x, 2, axis=2) for x in (k, v)), shuffled())
    close(grouped, repeated)


# Meshes


def mesh_of(kind):
    return jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind, kind))


def place(tree, mesh, *spec):
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*spec)))


def sharded_arguments(name, mesh):
    """Shards what ``layer`` takes: tokens over the batch, and what has heads over these as well."""
    encoding = place(common.build(name), mesh)
    *sides, weights, weights_BTHC = arguments_of_layer()
    model = None if schemes.ALL[name].mixes_heads else "model"
    weights = place(weights, mesh, None, model)
    return (
        encoding,
        *(place(x, mesh, "data") for x in sides),
        weights,
        place(weights_BTHC, mesh, "data", None, model),
    )


def assert_sharded(name, output):
    heads = common.HEADS if schemes.ALL[name].mixes_heads else 1
    assert output.sharding.shard_shape(output.shape) == (B // 2, T, heads, common.HEAD_DIM)


@each_kind
def test_attention_on_a_mesh_of_auto_axes(name):
    *arguments, _ = sharded_arguments(name, mesh_of(AxisType.Auto))
    encoding, x_BTD, positions, segment_ids, weights = arguments
    actual = common.attention(encoding, x_BTD, positions, segment_ids, weights=weights)
    assert_sharded(name, actual)
    (_, expected), _ = layer(common.build(name), *arguments_of_layer())
    close(actual, expected)


@each_program
def test_attention_and_gradients_on_a_mesh_of_explicit_axes(name):
    """Gradients by input and parameters agree; operations must know where results lie."""
    mesh = mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh):
        (_, output), _ = actual = layer(*sharded_arguments(name, mesh))
    assert_sharded(name, output)
    close_trees(actual, layer(common.build(name), *arguments_of_layer()))


@pytest.mark.parametrize("name", ["learned", "transformer_xl"])
@each_mesh
def test_model_on_a_mesh(name, kind):
    """The batch is sharded, and the parameters are on every device."""
    weights_BTV = common.normal(0, B, T, common.VOCAB)
    model, positions = common.build_model(name), shuffled()
    expected = common.loss_and_gradients(model, TOKEN_IDS, positions, weights_BTV)
    mesh = mesh_of(kind)
    with jax.set_mesh(mesh):
        batch = (place(x, mesh, "data") for x in (TOKEN_IDS, positions, weights_BTV))
        actual = common.loss_and_gradients(place(model, mesh), *batch)
    close_trees(actual, expected)


# Transformations


@pytest.mark.parametrize("name", common.one_of_each_set_of_hooks())
def test_without_jit(name):
    encoding = common.build(name)
    close(
        common.attention.__wrapped__(encoding, jnp.asarray(residual()), shuffled()),
        common.attention(encoding, residual(), shuffled()),
    )


@each_kind
def test_with_the_flags_that_users_have(name):
    usual = jax.jit(layer.__wrapped__, compiler_options=common.USUAL_FLAGS)
    encoding, arguments = common.build(name), arguments_of_layer()
    close_trees(usual(encoding, *arguments), layer(encoding, *arguments))


@each_kind
def test_under_vmap(name):
    """An ensemble has two sets of parameters and two inputs."""
    ensemble = [common.build(name, seed=seed) for seed in (0, 1)]
    inputs = np.stack([residual(seed=seed) for seed in (0, 1)])
    stacked = jax.tree.map(lambda *p: np.stack(p), *ensemble)
    together = jax.jit(jax.vmap(common.attention, in_axes=(0, 0, None)))(
        stacked, inputs, shuffled()
    )
    for member, x_BTD, output in zip(ensemble, inputs, together, strict=True):
        close(output, common.attention(member, x_BTD, shuffled()))


def assert_same_numbers(name, **options):
    weights_BTV = common.normal(0, B, T, common.VOCAB)
    results = []
    for model in (common.build_model(name), common.build_model(name, **options)):
        loss, gradients = common.loss_and_gradients(model, TOKEN_IDS, shuffled(), weights_BTV)
        shared = gradients.embedding, gradients.final_norm, gradients.encodings
        results.append((loss, shared, layer_by_layer(gradients)))
    close_trees(*results)


def layer_by_layer(model):
    """Returns every layer by itself, of a model with or without scan."""
    if not model.scan:
        return [*model.layers]
    turns = range(model.num_layers // len(model.layers))
    cut = [[jax.tree.map(lambda p, i=i: p[i], layer) for layer in model.layers] for i in turns]
    return [layer for turn in cut for layer in turn]


@each_kind
def test_scan_and_remat_change_no_number(name):
    assert_same_numbers(name, scan=True, remat=True)


@pytest.mark.parametrize("option", ["scan", "remat"])
def test_scan_or_remat_changes_no_number(option):
    assert_same_numbers("transformer_xl", **{option: True})


def assert_every_parameter_is_seen(name, gradients):
    chex.assert_tree_all_finite(gradients)
    for path, gradient in common.parameter_paths(gradients):
        invisible = schemes.ALL[name].invisible
        seen = not any(path[-len(names) :] == names for names in invisible)
        assert (np.abs(gradient).max() > 1e-3) == seen, path


@each_program
def test_every_parameter_has_a_gradient(name):
    _, (gradients, _) = layer(common.build(name), *arguments_of_layer())
    assert_every_parameter_is_seen(name, gradients)


@each_kind
def test_every_parameter_of_a_model_has_a_gradient(name):
    """Each layer must use the parameters of its own."""
    weights_BTV = common.normal(0, B, T, common.VOCAB)
    _, gradients = common.loss_and_gradients(
        common.build_model(name), TOKEN_IDS, shuffled(), weights_BTV
    )
    assert_every_parameter_is_seen(name, gradients)


# Keywords


@pytest.mark.parametrize("name", schemes.ALL)
def test_every_keyword_is_listed(name):
    listed = schemes.ALL[name].alternatives
    missing = set(own_keywords(name)) - set(listed)
    assert not missing, (
        f"no other value of {sorted(missing)} to test {name!r} with: add one to "
        f"its alternatives in tests/schemes"
    )
    assert not set(listed) - set(own_keywords(name))


def alternatives(name, in_training):
    """Returns the other values of a scheme's keywords, those that show in training or the rest."""
    every = schemes.ALL[name].alternatives
    return {key: v for key, v in every.items() if (v.trains or v.training_only) == in_training}


def settings(keyword, other):
    """Returns both sides of a comparison: keywords, and the number of position axes."""
    baseline = {} if other.baseline is None else {keyword: other.baseline}
    one = other.beside | baseline, other.baseline_axes or other.num_axes
    return one, (other.beside | {keyword: other.value}, other.num_axes)


@pytest.mark.parametrize("name", [name for name in schemes.ALL if alternatives(name, False)])
def test_every_keyword_matters(name):
    """One program computes all values, which takes half as long as one for each."""
    pairs = {key: settings(key, other) for key, other in alternatives(name, False).items()}
    distinct = {repr(each): each for pair in pairs.values() for each in pair}
    encodings = {key: common.build(name, **own) for key, (own, _) in distinct.items()}

    def output(encoding, own, num_axes):
        weights = common.projections(head_dim=own.get("head_dim", common.HEAD_DIM))
        return common.attention(encoding, residual(), on_axes(num_axes), weights=weights)

    @jax.jit
    def outputs(encodings):
        return {key: output(encodings[key], *each) for key, each in distinct.items()}

    found = outputs(encodings)
    ignored = [key for key, pair in pairs.items() if not far(*(found[repr(p)] for p in pair))]
    assert not ignored


IN_TRAINING = [(name, key) for name in schemes.ALL for key in alternatives(name, True)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "keyword"), IN_TRAINING)
def test_every_keyword_of_training_matters(name, keyword):
    other = schemes.ALL[name].alternatives[keyword]
    one, two = (common.build(name, **own) for own, _ in settings(keyword, other))
    if other.training_only:
        looks = places_in_training, objective_in_training
        assert any(far(look(one), look(two)) for look in looks)
        return
    outputs = [common.attention(each, residual(), shuffled()) for each in (one, two)]
    close(*outputs)
    gradients = [
        jax.grad(lambda each: (common.attention(each, residual(), shuffled()) ** 2).sum())(each)
        for each in (one, two)
    ]
    for pair in zip(*map(jax.tree.leaves, gradients), strict=True):
        assert far(*pair)


def on_axes(num_axes):
    """Returns ``[B, T]`` positions, or ``[B, T, num_axes]`` with another order on each axis."""
    positions = shuffled(100 - 5 * (num_axes - 1))
    if num_axes == 1:
        return positions
    others = [positions[:, ::-1] + 5 * axis for axis in range(1, num_axes)]
    return np.stack([positions, *others], axis=-1)


@jax.jit
def places_in_training(encoding):
    """Returns positions in a few training steps, ``[steps, T]``."""
    keys = jax.random.split(jax.random.key(0), 8)
    return jax.vmap(lambda key: encoding.tokens(text(T), key=key).positions[0])(keys)


@jax.jit
def objective_in_training(encoding):
    """Returns the scheme's own objective."""
    return encoding.aux_loss(jax.random.key(0))


# Models


def by_hand(model, layer_encodings, token_ids, positions):
    """Returns the model's logits, one block after another, of a model without scan."""
    x_BTD = model.embedding[...][token_ids]
    for encoding in {id(each): each for each in layer_encodings}.values():
        x_BTD = encoding.embed(x_BTD, encoding.tokens(positions))
    for layer, encoding in zip(model.layers, layer_encodings, strict=True):
        x_BTD, _ = layer.block(x_BTD, encoding, encoding.tokens(positions))
    return model.final_norm(x_BTD) @ model.embedding[...].T


@pytest.mark.parametrize(("turns", "scan"), [(1, False), (2, True)])
def test_pattern_of_layers(turns, scan):
    rope, nope = common.build("rope"), common.build("nope")
    pattern = [rope, rope, rope, nope]
    model, plain = (
        common.build_model(pattern, num_layers=4 * turns, scan=s) for s in (scan, False)
    )
    output = common.forward(model, TOKEN_IDS, shuffled())
    expected = jax.jit(by_hand)(plain, pattern * turns, TOKEN_IDS, shuffled())
    close(output, expected, atol=1e-4)
    for other in (rope, pattern[::-1]):
        assert far(output, common.forward(model.under(other), TOKEN_IDS, shuffled()))


@pytest.mark.parametrize("scan", [False, True])
def test_pattern_with_parameters_for_each_layer(scan):
    own_parameters = common.build("transformer_xl", num_layers=4)
    bias = common.build("t5")
    pattern = [own_parameters, bias, own_parameters]
    model, plain = (common.build_model(pattern, num_layers=6, scan=each) for each in (scan, False))
    layers = [own_parameters.of_layer(i) for i in range(4)]
    layers = [layers[0], bias, *layers[1:3], bias, layers[3]]
    output = common.forward(model, TOKEN_IDS, shuffled())
    close(output, jax.jit(by_hand)(plain, layers, TOKEN_IDS, shuffled()), atol=1e-4)
    swapped = jax.tree.map(lambda p: p[::-1], own_parameters)
    other = model.under([swapped, bias, swapped])
    assert far(output, common.forward(other, TOKEN_IDS, shuffled()))


def test_one_instance_is_one_set_of_parameters():
    bias = common.build("t5")
    model = common.build_model([bias, common.build("rope"), bias, bias], num_layers=4)
    tables = [p for path, p in common.parameter_paths(model) if path[-1] == "table"]
    assert len(tables) == 1


def test_layers_draw_their_own_parameters():
    stacked = common.build("transformer_xl", num_layers=3, trained=False)
    for p in jax.tree.leaves(stacked):
        assert p.shape[0] == 3
        assert far(p[0], p[1]) and far(p[1], p[2])


@each_kind
def test_evaluation_under_another_encoding(name):
    trained = common.build_model("alibi")
    other = common.build(name, num_layers=common.LAYERS)
    swapped = common.forward(trained.under(other), TOKEN_IDS, shuffled())
    close(swapped, common.forward(common.build_model(other), TOKEN_IDS, shuffled()), atol=1e-4)
    if name != "alibi":
        assert far(swapped, common.forward(trained, TOKEN_IDS, shuffled()))


@each_scheme
def test_seeds(name):
    """The same seed gives the same parameters, another seed others, where any are drawn."""
    one, same, other = (common.build(name, seed=seed, trained=False) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(one, same)
    # GRAPE-M's rates start as RoPE's.
    if name != "grape_m" and any(np.ptp(p) > 0 for p in jax.tree.leaves(one)):
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
        assert any(far(a, b) for a, b in pairs)
