"""Writes the rotations of small models of every type, for the tests that run without torch.

``python -m parity.model_types`` writes ``tests/golden/hf_model_types.json``: a config for each
type, for each of its layers the cosine and sine by which transformers rotates each pair at one
position, and which keys each layer with attention sees. Of models whose rotary parts alone are run
it has one layer of each kind, and not which keys they see. Mistral Large 4 is left out, because its
rates are learned: ``tests/encodings/test_golden_released.py`` has it.
"""

import json
import pathlib

import numpy as np

from parity import checks
from parity.small_models import SmallModel, as_published, small_config
from posenc_jax.encodings.lib.wrapper import innermost
from posenc_jax.hf.config import about_positions
from posenc_jax.hf.values import words

PATH = pathlib.Path(__file__).parent.parent / "tests" / "golden" / "hf_model_types.json"
POSITION = (7, 3, 2)  # time or text, row and column

_SIZES = words("""
    model_type head_dim hidden_size num_attention_heads decoder_num_attention_heads
    num_hidden_layers num_layers layer_types layers_block_type max_position_embeddings
    original_max_position_embeddings sliding_window per_layer_config position_embedding_type
    attention_head_dim kv_channels mlp_layer_types prefix_dense_sliding_window_pattern floor_scale
    attn_scale n_embd n_head d_model n_heads num_heads max_seq_len n_positions n_layer n_layers
    attention_chunk_size attn_layer_indices attn_layer_offset attn_layer_period block_types
    cross_attention_layers full_attn_idxs global_attn_every_n_layers max_window_layers
    local_attention sliding_window_pattern use_bidirectional_attention use_sliding_window
""")


def record(model_type: str, tables: list) -> dict:
    """Returns the config of a small model and its layers; their tables are put into ``tables``."""
    config = small_config(model_type)
    small, published = SmallModel(config), as_published(config)
    there = _there(model_type, published)
    layers = {}
    calls = zip(small.read(np.zeros_like(there)), small.read(there), strict=True)
    for order, ((layer, _, k_0), (_, _, k)) in enumerate(calls):
        number = checks.number_of(layer, order, published)
        encoding = checks.answer(published, layer=number)
        if encoding is None or number in layers:
            continue
        inner = innermost(encoding)
        if not hasattr(inner, "rotary_dim"):
            layers[number] = None
            continue
        width = checks.width_of(encoding, k.shape[-1])
        if small.deinterleaves:
            k_0, k = checks.together(k_0, width), checks.together(k, width)
        kind = dict(enumerate(checks.kinds_of(published))).get(number)
        rotation = _rotation(k_0, k, width, inner) * checks.attention_factor(small, kind)
        layers[number] = [inner.layout, width, inner.rotary_dim, _row(rotation, tables)]
    windows = None
    if model_type not in checks.NO_PATTERN:
        windows = [[n, _window(mask)] for n, mask in checks.windows_of(small, published).items()]
    return {
        "config": _section(published),
        "layers": list(layers.items()),
        "windows": windows,
    }


def record_of_parts(model_type: str, tables: list) -> dict:
    """Returns the config of a class and a layer of each kind, as its rotary parts rotate it."""
    config, published = checks.config_of_parts(model_type)
    there, layers = _there(model_type, published), []
    listed = checks.kinds_of(published)
    for kind in checks.kinds_of_parts(published):
        numbers = (n for n in range(len(listed) or 4) if kind in (None, *listed[n : n + 1]))
        number = next(n for n in numbers if checks.answer(published, layer=n) is not None)
        encoding = checks.answer(published, layer=number)
        C = encoding.head_dim
        x = np.random.default_rng(0).standard_normal((1, there.shape[-1], 1, C)).astype(np.float32)
        rotation = _rotation(x, checks.rotated_by_parts(config, there, kind, x), C, encoding)
        layers.append([number, [encoding.layout, C, encoding.rotary_dim, _row(rotation, tables)]])
    return {"config": _section(published), "layers": layers}


def _there(model_type, published):
    """Returns positions as transformers takes them, ``POSITION`` for every token."""
    theirs, _ = checks.positions_of(model_type, published)
    there = np.zeros_like(theirs)
    there.T[...] = POSITION[: len(theirs)] if theirs.ndim == 3 else POSITION[0]
    return there


def _section(published):
    """Returns the keys of a config that are about positions or sizes."""
    return {
        key: value
        for key, value in published.items()
        if value is not None and (key in _SIZES or about_positions(key))
    }


def _window(mask):
    """Returns the window of ``mask``.

    It is a number of keys, ``[tokens of a chunk]``, ``[keys before, keys after]``, or None.
    """
    if mask is None or mask.all():
        return None
    q, k = np.indices(mask.shape)
    if (mask == (q >= k)).all():
        return None
    for size in range(1, len(mask)):
        if (mask == ((q >= k) & (q - k < size))).all():
            return size
        if (mask == ((q >= k) & (q // size == k // size))).all():
            return [size]
        if (mask == (abs(q - k) <= size)).all():
            return [size, size]
    raise ValueError(f"no window hides as {mask}")


def _row(rotation, tables):
    """Returns the number of the table of this rotation, which is added if there is none."""
    table = [[round(float(x), 6) for x in part] for part in (rotation.real, rotation.imag)]
    for number, known in enumerate(tables):
        if np.shape(known) == np.shape(table) and np.allclose(known, table, rtol=0, atol=4e-6):
            return number
    tables.append(table)
    return len(tables) - 1


def _rotation(k_0, k, width, encoding):
    """Returns the complex number that each pair is multiplied by, without the attention factor."""
    pairs = [_pairs(x[..., -width:][..., : encoding.rotary_dim], encoding.layout) for x in (k_0, k)]
    before, after = (x.astype(np.complex128).reshape(-1, x.shape[-1]) for x in pairs)
    return (after * before.conj()).sum(0) / (abs(before) ** 2).sum(0)


def _pairs(x, layout):
    a, b = np.split(x, 2, -1) if layout == "half" else (x[..., 0::2], x[..., 1::2])
    return a + 1j * b


def main():
    tables: list = []
    run = [name for name in checks.KNOWN if name not in checks.NOT_RUN | {checks.LEARNED}]
    records = {name: record(name, tables) for name in run}
    records |= {name: record_of_parts(name, tables) for name in checks.BY_PARTS}
    write(records, tables)


def write(records: dict, tables: list) -> None:
    """Writes the file, each model and each table on a line of its own."""
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in records.items()]
    lines_of_tables = [f"  {json.dumps(table)}" for table in tables]
    PATH.write_text(
        '{\n "models": {\n'
        + ",\n".join(lines)
        + '\n },\n "tables": [\n'
        + ",\n".join(lines_of_tables)
        + "\n ]\n}\n"
    )


if __name__ == "__main__":
    main()
