"""Compares the rotations and windows of ``from_hf`` with those of transformers' own models."""

import importlib
import inspect
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import CONFIG_MAPPING

from parity.small_models import TOKENS, SmallModel, as_published, small_config
from posenc_jax import Chunks, Side, from_hf, layers_from_hf, sinks_from_hf
from posenc_jax.encodings.lib.wrapper import innermost
from posenc_jax.hf.families import FAMILIES, having
from posenc_jax.hf.odd import not_known
from posenc_jax.hf.pattern import same

torch.set_num_threads(1)

KNOWN = sorted(having(scheme="rope") + having(scheme="nope"))
LEARNED = "mistral_large4_text"  # its checkpoint has rates and scales
# Published models whose code is not in transformers.
ELSEWHERE = {"internlm2", "kimi_k2", "minimax_m1", "minimax_text_01"}
ELSEWHERE |= {"bailing_moe_v3", "gigachat3_5", "iquest_q1", "xllm"}
# Models without the usual attention, or with parts that need other inputs: their rotary classes and
# functions are run instead.
BY_PARTS = {
    "blt_global_transformer": ("blt", "BltRotaryEmbedding"),
    "blt_local_decoder": ("blt", "BltRotaryEmbedding"),
    "blt_local_encoder": ("blt", "BltRotaryEmbedding"),
    "chameleon": ("chameleon", "ChameleonRotaryEmbedding"),
    "dbrx": ("dbrx", "DbrxRotaryEmbedding"),
    "deepseek_ocr2_text": ("deepseek_ocr2", "DeepseekOcr2TextRotaryEmbedding"),
    "diffusion_gemma_text": ("diffusion_gemma", "DiffusionGemmaTextRotaryEmbedding"),
    "falcon": ("falcon", "FalconRotaryEmbedding"),
    "gpt_neox_japanese": ("gpt_neox_japanese", "GPTNeoXJapaneseRotaryEmbedding"),
    "moonshine": ("moonshine", "MoonshineRotaryEmbedding"),
    "moonshine_streaming": ("moonshine_streaming", "MoonshineStreamingRotaryEmbedding"),
    "qwen3_omni_moe_text": ("qwen3_omni_moe", "Qwen3OmniMoeThinkerTextRotaryEmbedding"),
    "qwen4_exp_text": ("qwen4_exp", "Qwen4ExpTextRotaryEmbedding"),
    "recurrent_gemma": ("recurrent_gemma", "RecurrentGemmaRotaryEmbedding"),
    "t5gemma2_decoder": ("t5gemma2", "T5Gemma2RotaryEmbedding"),
    "t5gemma2_text": ("t5gemma2", "T5Gemma2RotaryEmbedding"),
    "zaya": ("zaya", "ZayaRotaryEmbedding"),
}
GIVEN = {
    "qwen3_omni_moe_text": dict(head_dim=128),
    "qwen4_exp_text": dict(
        head_dim=256,
        rope_parameters=dict(rope_type="default", rope_theta=1e7, partial_rotary_factor=0.25),
    ),
}
# Models whose code was read instead: RoFormer has other functions, HunYuan-VL has no default that
# works, and the others do not rotate anything.
READ = {"roformer", "hunyuan_vl_text", "kimi_linear", "zamba", "glm5_next_text"}
NOT_RUN = BY_PARTS.keys() | READ | ELSEWHERE

_OTHERS = {"linear_attention", "conv", "mamba", "mamba2", "recurrent", "moe", "mlp"}


def positions_of(model_type, config):
    """Returns positions ``[A, B, T]`` as in transformers, and ``[B, T, A]`` as here."""
    has_sections = "mrope_section" in json.dumps(config.get("rope_parameters"))
    row = FAMILIES[model_type]
    axes = 3 if row.sections or has_sections else 1
    axes = 2 if model_type == "neomme" else axes
    positions = np.random.default_rng(0).integers(0, 60, (axes, 1, TOKENS))
    return (positions[0], positions[0]) if axes == 1 else (positions, np.moveaxis(positions, 0, -1))


class Matrices:
    """Keeps the matrices that encodings multiply queries and keys by, once for equal encodings."""

    def __init__(self, positions, channels):
        self.positions, self.channels, self.known = positions, channels, []

    def __call__(self, encoding):
        """Returns the width, and matrices ``[T + 1, width, width]`` of queries and of keys.

        The last matrix is that of position 0.
        """
        graph = nnx.split(encoding)[0]
        for known, matrices in self.known:
            if known == graph:
                return matrices
        width = width_of(encoding, self.channels)
        positions = np.concatenate([self.positions, 0 * self.positions[:, :1]], axis=1)
        here = encoding.at(jnp.asarray(positions, jnp.int32))
        unit_BTHC = jnp.broadcast_to(jnp.eye(width), (1, TOKENS + 1, width, width))
        sides = (Side(None, width, is_query) for is_query in (True, False))
        matrices = (
            width,
            [np.asarray(encoding.rotate(unit_BTHC, here.tokens, side))[0] for side in sides],
        )
        self.known.append((graph, matrices))
        return matrices


def apart(x, width):
    """Moves the two channels of each interleaved pair apart, as DeepSeek's code does."""
    still, x = x[..., :-width], x[..., -width:]
    return np.concatenate([still, x[..., 0::2], x[..., 1::2]], -1)


def together(x, width):
    """Undoes ``apart``."""
    still, x = x[..., :-width], x[..., -width:]
    return np.concatenate([still, np.stack(np.split(x, 2, -1), -1).reshape(x.shape)], -1)


def assert_rotates_alike(width, matrix_TCC, at_0, at_positions, is_apart):
    """Checks the queries or keys of one layer; ``at_0`` includes the attention factor."""
    still, before = np.split(together(at_0, width) if is_apart else at_0, [-width], -1)
    before = before / np.diagonal(matrix_TCC[-1])
    actual = np.einsum("bthc,tcd->bthd", before, matrix_TCC[:-1])
    actual = np.concatenate([still, actual], -1)
    actual = apart(actual, width) if is_apart else actual
    scale = np.abs(at_positions).max()
    np.testing.assert_allclose(actual / scale, at_positions / scale, atol=2e-5)


def width_of(encoding, channels):
    """Returns how many channels the encoding is for; in heads of two parts, the last channels."""
    return getattr(innermost(encoding), "head_dim", channels)


def attention_factor(small, kind):
    """Returns the factor by which transformers multiplies cosine and sine."""
    for module in small.model.modules():
        for name in ("attention_scaling", f"{kind}_attention_scaling"):
            if "otary" in type(module).__name__ and hasattr(module, name):
                return float(getattr(module, name))
    return 1.0


def kinds_of(config):
    kinds = config.get("layer_types") or config.get("layers_block_type") or []
    return kinds[::2] if config["model_type"] == "dory" else kinds


def number_of(layer, order, config):
    """Returns the number of an attention layer; ``order`` counts attention layers only."""
    if config["model_type"] == "hrm_text":  # This model runs its stack several times.
        return order
    number = getattr(layer, "layer_idx", None)
    if number is not None and number >= 0:
        return number // 2 if config["model_type"] == "longcat_flash" else number
    kinds = kinds_of(config)
    return [n for n, kind in enumerate(kinds) if kind not in _OTHERS][order] if kinds else order


def answer(config, **arguments):
    """Returns the encoding, or None if ``from_hf`` raises ValueError."""
    try:
        return from_hf(config, **arguments)
    except ValueError:
        return None


# Models for which no pattern of layers is right, because of the windows of their small config.
NO_PATTERN = {*having(reach=not_known), "unlimited_ocr_text"}


def assert_sees_alike(window, mask):
    """Checks a window against the keys ``[T, T]`` that a layer of transformers sees."""
    if mask is None or mask.all():
        assert window is None
        return
    q, k = np.indices(mask.shape)
    visible = q >= k
    if isinstance(window, tuple):
        visible = (q - k <= window[0]) & (k - q <= window[1])
    elif isinstance(window, Chunks):
        visible &= q // window.size == k // window.size
    elif window is not None:
        visible &= q - k < window
    np.testing.assert_array_equal(mask, visible)


def windows_of(small, published):
    """Returns the keys that each layer with attention sees, by its number."""
    theirs = positions_of(published["model_type"], published)[0]
    # Consecutive positions, because transformers takes others for those of packed documents.
    calls = small.read(np.broadcast_to(np.arange(TOKENS), theirs.shape))
    numbers = [number_of(layer, order, published) for order, (layer, _, _) in enumerate(calls)]
    return dict(zip(numbers, small.masks, strict=True))


def assert_layers_alike(small, published):
    """Checks the whole pattern: which layers attend, under which encoding, in which window."""
    if published["model_type"] in NO_PATTERN:
        with pytest.raises(ValueError, match=r"not known|layer_types"):
            layers_from_hf(published)
        return
    pattern, masks = layers_from_hf(published), windows_of(small, published)
    assert max(masks) < len(pattern)
    for number, (encoding, window) in enumerate(pattern):
        if number not in masks:
            assert encoding is None and window is None
            continue
        assert same(encoding, from_hf(published, layer=number))
        assert_sees_alike(window, masks[number])


def assert_sinks_alike(calls, published):
    """Checks which layers with attention have sinks; ``calls`` are those of ``SmallModel.read``."""
    ours = sinks_from_hf(published)
    for order, (layer, _, _) in enumerate(calls):
        theirs = None if getattr(layer, "sinks", None) is None else "head"
        assert theirs == ours[number_of(layer, order, published)]


def check_learned(model_type):
    """Checks a model whose checkpoint has rates and scales, with numbers in their place."""
    config = small_config(model_type)
    small, published = SmallModel(config), as_published(config)
    for name, parameter in small.model.named_parameters():
        if re.search(r"alpha$|softmax_scaling\.", name):
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    alpha = small.model.rotary_emb.alpha.detach().numpy()
    theirs, ours = positions_of(model_type, published)
    calls = list(zip(small.read(np.zeros_like(theirs)), small.read(theirs), strict=True))
    pattern = layers_from_hf(published, rngs=nnx.Rngs(0))
    assert len(calls) == len(pattern)
    for number, ((layer, *at_0), (_, *at_positions)) in enumerate(calls):
        encoding = from_hf(published, layer=number, rngs=nnx.Rngs(0))
        assert same(encoding, pattern.at(number)[0].of_layer(pattern.row(number)))
        scaling = {key: p.detach().numpy() for key, p in layer.softmax_scaling.named_parameters()}
        encoding.s[...], encoding.b[...] = scaling["scale"], scaling["bias"]
        rotates = hasattr(encoding.inner, "alpha")
        assert rotates == bool(published["no_rope_layers"][number])
        if rotates:
            encoding.inner.alpha[...] = alpha
        # At position 0 nothing rotates, and queries are multiplied by the bias.
        before = at_0[0] / scaling["bias"][:, None], at_0[1]
        H = at_0[0].shape[2]
        here = encoding.at(jnp.asarray(ours, jnp.int32))
        for is_query, x, expected in zip((True, False), before, at_positions, strict=True):
            x = together(x, encoding.inner.rotary_dim) if rotates else x
            actual = encoding.rotate(jnp.asarray(x), here.tokens, Side(None, H, is_query))
            actual = apart(actual, encoding.inner.rotary_dim) if rotates else actual
            scale = np.abs(expected).max()
            np.testing.assert_allclose(actual / scale, expected / scale, atol=2e-5)


def check_model(model_type):
    """Checks how each layer rotates queries and keys, and which keys it sees."""
    if model_type == LEARNED:
        check_learned(model_type)
        return
    config = small_config(model_type)
    small, published = SmallModel(config), as_published(config)
    theirs, ours = positions_of(model_type, published)
    calls = list(zip(small.read(np.zeros_like(theirs)), small.read(theirs), strict=True))
    assert calls
    matrices = {q.shape[-1]: Matrices(ours, q.shape[-1]) for _, (_, q, _) in calls}
    unasked = answer(published)
    for order, ((layer, q_0, k_0), (_, q, k)) in enumerate(calls):
        number = number_of(layer, order, published)
        kind = dict(enumerate(kinds_of(published))).get(number)
        answers = [answer(published, layer=number), answer(published, layer_type=kind), unasked]
        assert answers[0] is not None, from_hf(published, layer=number)
        for encoding in filter(None, answers):
            width, (q_matrix, k_matrix) = matrices[q.shape[-1]](encoding)
            if encoding.overrides("rotate"):
                factor = np.abs(k_matrix[-1]).max()
                np.testing.assert_allclose(factor, attention_factor(small, kind), rtol=1e-6)
            assert_rotates_alike(width, q_matrix, q_0, q, small.deinterleaves)
            assert_rotates_alike(width, k_matrix, k_0, k, small.deinterleaves)
    assert_sinks_alike([before for before, _ in calls], published)
    assert_layers_alike(small, published)


def check_parts(model_type):
    """Checks a model's rotary class, and its function that rotates by the class's tables."""
    config, published = config_of_parts(model_type)
    theirs, ours = positions_of(model_type, published)
    for kind in kinds_of_parts(published):
        encoding = from_hf(published, layer_type=kind)
        C = encoding.head_dim
        x_BTHC = np.random.default_rng(1).standard_normal((1, TOKENS, 2, C)).astype(np.float32)
        expected = rotated_by_parts(config, theirs, kind, x_BTHC)
        _, (matrix_TCC, _) = Matrices(ours, C)(encoding)
        actual = np.einsum("bthc,tcd->bthd", x_BTHC, matrix_TCC[:-1])
        np.testing.assert_allclose(actual, expected, atol=2e-5)


def config_of_parts(model_type):
    """Returns the default config of a class, and what its ``config.json`` holds."""
    config = CONFIG_MAPPING[model_type](**GIVEN.get(model_type, {}))
    return config, as_published(config)


def kinds_of_parts(published):
    """Returns the kinds of layers that have a rotary section each, or None for all layers."""
    listed = published.get("layer_types", ())
    return [kind for kind in published["rope_parameters"] if kind in listed] or [None]


def rotated_by_parts(config, theirs, kind, x_BTHC):
    """Returns queries or keys, rotated by the rotary class and function of the config's model."""
    module, name = BY_PARTS[config.model_type]
    module = importlib.import_module(f"transformers.models.{module}.modeling_{module}")
    x = torch.as_tensor(x_BTHC, dtype=torch.float32).transpose(1, 2)
    keywords = {} if kind is None else {"layer_type": kind}
    cos, sin = getattr(module, name)(config)(x, torch.as_tensor(theirs), **keywords)
    width = cos.shape[-1]
    rotate = module.apply_rotary_pos_emb
    if "k" in inspect.signature(rotate).parameters:
        rotated = rotate(x[..., :width], x[..., :width], cos, sin)[0]
    else:
        rotated = rotate(x[..., :width], cos, sin)
    return torch.cat([rotated, x[..., width:]], -1).transpose(1, 2).numpy()


def answers_of(config) -> list:
    """Returns the answers for all kinds of layers, without refusals."""
    kinds = {None, "encoder", "decoder", *kinds_of(config)}
    answers = [answer(config, layer_type=kind, rngs=nnx.Rngs(0)) for kind in kinds]
    return [encoding for encoding in answers if encoding is not None]
