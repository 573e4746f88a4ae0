"""Compares whole layers of attention with other people's code: one row for each golden file."""

import dataclasses
from collections.abc import Callable

import common
import jax.numpy as jnp
import numpy as np
import pytest
from golden_checks import by_token, close, empty, layer, load, tolerance

from posenc_jax.encodings.bias.alibi import alibi_slopes


def nothing(arrays, params):
    return {}


@dataclasses.dataclass(frozen=True)
class Layer:
    """Describes a layer; functions take the arrays and the settings of its golden file.

    Attributes:
      scheme: its name.
      keywords: beside the numbers of heads and the widths, which the arrays have.
      weights: parameters by their dotted paths.
      keys: the arrays that are compared.
      lower: whether logits are compared only for keys that are not ahead of their query.
      sides: the arrays of queries, keys and values.
      prepared: changes queries, keys, values and input before they are used.
    """

    scheme: str
    keywords: Callable = nothing
    weights: Callable = nothing
    keys: tuple[str, ...] = ("probs", "out")
    lower: bool = False
    sides: tuple[str, str, str] = ("q", "k", "v")
    prepared: Callable = lambda sides, arrays, params: sides
    causal: bool = True
    scale: float | None = None
    rtol: float | None = None


def of(**paths):
    """Returns a function to weights by path from keys of the file."""
    return lambda a, p: {path: a[key] for path, key in paths.items()}


WEIGHTS = "causal_probs", "final_probs", "probs", "weights"


def shaw(values):
    return lambda a, p: dict(max_distance=len(a["table_k"]) // 2, values=values)


def shaw_of_bert(a, p):
    """Returns the table rotated round: BERT's begins with the keys furthest ahead."""
    return {"keys": a["table"][::-1]}


def deberta(key, query, bias):
    """Returns a function to the table and the projections of these names."""

    def weights(a, p):
        shape = p["heads"], p["head_dim"], -1
        w_kr, w_qr, b_qr = (a[name].reshape(shape) for name in (key, query, bias))
        return dict(table=a["rel_embeddings"], w_kr=w_kr, w_qr=w_qr, b_qr=b_qr[..., 0])

    def keywords(a, p):
        buckets = p.get("position_buckets")
        return dict(max_distance=p["max_relative_positions"], num_buckets=buckets)

    return Layer("deberta", keywords, weights, ("probs", "context"), causal=False)


DEBERTA_V1 = deberta("pos_key_proj_weight", "pos_query_proj_weight", "pos_query_proj_bias")
# Positions share the projections of the tokens; the bias of keys does not show.
DEBERTA_V2 = deberta("w.key_proj.weight", "w.query_proj.weight", "w.query_proj.bias")


def deberta_of_bert(a, p):
    """Returns no projections, and a table with a row for the key furthest ahead."""
    unit = np.tile(np.eye(p["head_dim"]), (p["heads"], 1, 1))
    return dict(table=np.pad(a["table"], ((1, 0), (0, 0))), w_kr=unit, w_qr=unit)


def logn(sides, a, p):
    """Multiplies queries as the code does before they rotate."""
    q, *others = sides
    growth = np.log(np.arange(p["T"]) + 1) / np.log(p["training_length"])
    return q * np.maximum(1, growth)[None, :, None, None], *others


def wall(a, p):
    weights = {"kernel": "w_g", "bias": "b_g", "gate.kernel": "w_s", "gate.bias": "b_s"}
    weights = {path: a[key] for path, key in weights.items() if key in a}
    if "w_g" in a:
        return weights
    # Gates that are open for good leave the products alone.
    shape = p["num_heads"], p["head_dim"]
    return weights | {"kernel": np.zeros((a["x"].shape[-1], *shape)), "bias": np.full(shape, 200.0)}


def grape_ap(a, p):
    D = p["num_heads"] * p["p_head_dim"]
    return {"kernel": a["w_p"].reshape(-1, D) if "w_p" in a else np.eye(D)}


def tied(sides, a, p):
    """Takes the vectors themselves for the input, where they are not projected from one."""
    q, k, v, x = sides
    return q, k, v, x if "w_p" in a else a["p"].reshape(*q.shape[:2], -1)


def inkling(a, p):
    keywords = dict(rank=p["d_rel"], extent=p["rel_extent"])
    keywords |= dict(log_floor=p["log_scaling_n_floor"], log_scale=p["log_scaling_alpha"])
    if "qk_l2_clip_threshold" in p:
        keywords |= dict(clip=p["qk_l2_clip_threshold"], vector_clip=p["rel_l2_clip_threshold"])
    return keywords


def of_inkling(a, p):
    scales = dict(query_scale="q_scale", vector_scale="rel_scale")
    scales = {path: a[key] for path, key in scales.items() if key in a}
    D, H, R = a["w_rel"].shape
    return dict(kernel=a["w_rel"].reshape(D, H * R), profiles=a["profiles"]) | scales


def of_log_gates(sides, a, p):
    """Takes what the gates' log sigmoid is of for the input."""
    g = a["g"].astype(np.float64)
    return *sides[:3], g - np.log(-np.expm1(g))


def projected(sides, a, p):
    """Projects queries, keys and values from the input."""
    both = a["x"] @ a["qkv_weight"].T + a["qkv_bias"]
    heads = (y.reshape(1, p["T"], p["heads"], -1) for y in np.split(both, 3, axis=-1))
    return *heads, a["x"]


SHAW_WEIGHTS = Layer("shaw", shaw(False), of(keys="table_k"), ("probs",))
SHAW = Layer("shaw", shaw(True), of(keys="table_k", values="table_v"), ("out",))
SHAW_OF_BERT = Layer(
    *("shaw", lambda a, p: dict(max_distance=len(a["table"]) // 2, values=False), shaw_of_bert),
    causal=False,
)
COPE_OF_X = Layer(
    *("cope", lambda a, p: dict(num_positions=len(a["pos_emb"])), of(table="pos_emb")),
    keys=("final_probs",),
    sides=("q_scaled", "k", "k"),
    scale=1.0,
)
COPE = Layer(
    *("cope", lambda a, p: dict(num_positions=len(a["pos_emb"].T), nodiv=p["nodiv"])),
    lambda a, p: {"table": a["pos_emb"].T},
)
NEAR = lambda a, p: dict(window=p["neighbor_window"], group_size=p["group_size"])  # noqa: E731
LEAKY = lambda a, p: dict(window=p["window"], factor=float(p["leaky_factor"]))  # noqa: E731
WALL = Layer(
    *("wall", lambda a, p: dict(forget_gate="w_s" in a), wall, ("logits", "out")), lower=True
)
GRAPE = "logits", "out", "bias", "slopes"
GRAPE_AP = Layer(
    *("grape_ap", lambda a, p: dict(width=p["p_head_dim"]), grape_ap, GRAPE, True), prepared=tied
)
INKLING = Layer("inkling", inkling, of_inkling, ("logits", "weights", "out"))
INKLING2 = dataclasses.replace(
    INKLING, scheme="inkling2", keys=("weights", "out"), sides=("q_raw", "k_raw", "v")
)

SHAW_LOGITS = dataclasses.replace(SHAW_OF_BERT, weights=of(keys="table"), keys=("logits",))
OF_KEY = of(omega="omega", of_key="u")
GRAPE_A_KEY = Layer("grape_a", lambda a, p: dict(gate="key"), OF_KEY, GRAPE, lower=True)
GRAPE_A = Layer("grape_a", nothing, of(omega="omega", of_key="u", of_query="w"), GRAPE, lower=True)
# BERT has no sqrt(3).
DEBERTA_OF_BERT = Layer(
    *("deberta", lambda a, p: dict(max_distance=p["max_position"], model_dim=p["head_dim"])),
    weights=deberta_of_bert,
    causal=False,
    scale=float(np.sqrt(3 / 6)),
)
FOX = Layer(
    *("fox", nothing, lambda a, p: {"gate.kernel": np.eye(2), "gate.bias": np.zeros(2)}),
    keys=("out",),
    prepared=of_log_gates,
    rtol=1e-5,
)
# CABLE is FoX with negated gates.
NEGATED = lambda a, p: {"gate.kernel": -a["h_weight"].T, "gate.bias": -a["h_bias"]}  # noqa: E731
CABLE = dataclasses.replace(FOX, weights=NEGATED, sides=("x",) * 3, prepared=projected, scale=1.0)

LAYERS = [
    ("alibi_bias_h4_T12", Layer("alibi", keys=("causal_probs",))),
    ("alibi_bias_h12_T9", Layer("alibi", keys=("causal_probs",))),
    ("t5_bias_h4_T40", Layer("t5", weights=of(table="table"), keys=("probs",), scale=1.0)),
    ("shaw_kv_h2_T8_w7", SHAW_WEIGHTS),
    ("shaw_kv_h2_T8_w7", SHAW),
    ("shaw_kv_clip_h2_T11_k3", SHAW_WEIGHTS),
    ("shaw_kv_clip_h2_T11_k3", SHAW),
    ("bert_relative_key_h2_T8", SHAW_OF_BERT),
    ("shaw_key_h2_T12_k4", SHAW_LOGITS),
    ("deberta_v1_h2_T10", DEBERTA_V1),
    ("deberta_v1_clip_T14_k4", DEBERTA_V1),
    ("deberta_v2_h2_T20", DEBERTA_V2),
    ("bert_relative_key_query_h2_T8", DEBERTA_OF_BERT),
    ("cope_h2_T7_p16", COPE_OF_X),
    ("cope_h2_T10_p6", COPE_OF_X),
    ("cope_official_L9_n6", COPE),
    ("cope_official_nodiv_L8", COPE),
    ("rerope_w4_T12", Layer("rerope", lambda a, p: dict(window=p["window"]), prepared=logn)),
    ("leaky_rerope_w4_s4_T12", Layer("leaky_rerope", LEAKY, prepared=logn)),
    ("self_extend_G4_w8_T30", Layer("self_extend", NEAR)),
    ("self_extend_G4_w10_T33_nondiv", Layer("self_extend", NEAR)),
    # Chunk and local window follow from the training length.
    ("dca_p32_T60", Layer("dual_chunk", lambda a, p: dict(train_length=32), keys=("out",))),
    ("wall", WALL),
    ("wall_is_fox", WALL),
    ("wall_scalar_sink_window", WALL),
    ("grape_a_key", GRAPE_A_KEY),
    ("grape_a_querykey", GRAPE_A),
    ("grape_ap", GRAPE_AP),
    ("grape_ap_tied_key", GRAPE_AP),
    ("inkling_full", INKLING),
    ("inkling_sliding", INKLING),
    ("inkling2_full", INKLING2),
    ("fox_attn_T14", FOX),
    ("cable_h2_T8", CABLE),
]


def by_head(x, params):
    """Returns ``[B, T, H, C]`` of an array that has heads first, second or none."""
    if "heads" not in params:
        return x if x.ndim == 4 else x[:, :, None]
    return by_token(x if x.ndim == 4 else x[None])


@pytest.mark.parametrize(("golden", "about"), LAYERS, ids=[f"{g}-{a.scheme}" for g, a in LAYERS])
def test_layer(golden, about):
    arrays, params = common.golden(golden)
    sides = [by_head(arrays[key if key in arrays else "k"], params) for key in about.sides]
    sides = about.prepared((*sides, arrays.get("x")), arrays, params)
    q, k, v, x = (None if y is None else jnp.asarray(y, jnp.float32) for y in sides)
    (H, C), width = q.shape[2:], None if x is None else x.shape[-1]
    sizes = dict(num_heads=H, num_kv_heads=k.shape[2], head_dim=C, model_dim=width or H * C)
    keywords = sizes | about.keywords(arrays, params)
    encoding = load(empty(about.scheme, **keywords), about.weights(arrays, params))

    names = {key: "weights" if key in WEIGHTS else key for key in about.keys}
    names = {key: "out" if key == "context" else name for key, name in names.items()}
    scale = about.scale or params.get("scale")
    rule = dict(window=params.get("window") if "num_heads" in params else None, scale=scale)
    rule |= {"sinks": jnp.asarray(arrays["sinks"], jnp.float32)} if "sinks" in arrays else {}
    given = dict(causal=about.causal, with_weights="weights" in names.values())
    results = layer(encoding, q, k, v, x, **given, **rule)
    results["slopes"] = alibi_slopes(H)
    if "bias" in names:
        plain = scale * np.einsum("bthc,bshc->bhts", q, k)
        results["bias"] = np.tril(results["logits"] - plain)
    for key, name in names.items():
        actual, expected = np.asarray(results[name]), arrays[key]
        if name == "out" and expected.ndim == 4:
            expected = by_head(expected, params)
        if name == "logits" and about.lower:
            actual, expected = np.tril(actual), np.tril(expected)
        actual = actual.reshape(expected.shape)
        allowed = tolerance(golden, key, name) | ({"rtol": about.rtol} if about.rtol else {})
        close(actual, expected, **allowed)
