"""Compares the answers of ``from_hf`` for every model type with the model's own code."""

import collections
import pathlib
import re

import numpy as np
import pytest
import transformers
from flax import nnx
from transformers import CONFIG_MAPPING
from transformers.models.auto.configuration_auto import (
    CONFIG_MAPPING_NAMES,
    model_type_to_module_name,
)
from transformers.models.t5gemma2.modeling_t5gemma2 import sliding_window_mask_function

from parity import checks
from parity.small_models import SmallModel, as_published, small_config
from posenc_jax import layers_from_hf
from posenc_jax.hf.config import flattened
from posenc_jax.hf.families import FAMILIES, TEXT_PARTS
from posenc_jax.hf.odd import t5gemma2
from posenc_jax.hf.refused import REFUSED
from posenc_jax.hf.values import words

# Directories of speech, images and sequences of other things, whose types are refused as unknown.
REFUSED_UNREAD = words("""
    clvp dia esmfold2 glmasr gradium_phonon_tts idefics kyutai_speech_to_text lasr mimi
    muse_glimmer_assistant musicflamingo nemotron3_5_transcribe nemotron3_diarization
    nemotron_asr_streaming neucodec parakeet pe_audio pe_audio_video pe_video pocket_tts
    pocket_tts_audio_tokenizer seamless_m4t t5gemma timesfm2_5 voxtral_realtime wav2vec2_bert
    wav2vec2_conformer xcodec2
""")


@pytest.mark.parametrize("model_type", sorted(set(checks.KNOWN) - checks.NOT_RUN))
def test_layers_are_as_in_transformers(model_type):
    checks.check_model(model_type)


@pytest.mark.parametrize("model_type", checks.BY_PARTS)
def test_rotary_parts_rotate_as_in_transformers(model_type):
    checks.check_parts(model_type)


def test_embedding_gemma_sees_both_sides():
    config = small_config("gemma3_text", use_bidirectional_attention=True)
    checks.assert_layers_alike(SmallModel(config), as_published(config))


@pytest.mark.parametrize("size", [7, 8])
def test_t5gemma2_sees_both_sides(size):
    """The encoder of T5Gemma 2 is not run here, so its mask is asked for each distance."""
    sees = sliding_window_mask_function(size, is_causal=False)
    before, after = t5gemma2({}, size)
    q, k = np.indices((20, 20))
    expected = (q - k <= before) & (k - q <= after)
    np.testing.assert_array_equal(sees(0, 0, q, k), expected)


# Keys that a config may leave out, and that its class then fills in.
LEFT_OUT = words("""
    layer_types layers_block_type sliding_window head_dim embedding_size rope_parameters
    per_layer_config max_window_layers layer_group_size local_attention rotary_dim
""")
# ERNIE 4.5 without head_dim is read as with a null there, and the code of MiniMax M3
# does not read rotary_dim, with which the default of its class contradicts the part that rotates.
EXEMPT = [("ernie4_5", "head_dim"), ("minimax_m3_vl_text", "rotary_dim")]


def said(config):
    """Returns all layers as text, or None if they are refused."""
    try:
        layers = layers_from_hf(config, rngs=nnx.Rngs(0))
    except ValueError:
        return None
    return [(repr(encoding), window) for encoding, window in layers]


@pytest.mark.parametrize("model_type", sorted(FAMILIES.keys() & CONFIG_MAPPING.keys()))
def test_what_a_config_leaves_out(model_type):
    """A config without a key is refused, or has the layers that its class gives it."""
    if FAMILIES[model_type].scheme == "t5" or model_type == "hunyuan_vl_text":
        return  # A config of T5 needs its stack, and HunYuan-VL has no default that works.
    whole = as_published(CONFIG_MAPPING[model_type]())
    for key in LEFT_OUT & whole.keys():
        if (model_type, key) in EXEMPT:
            continue
        part = {name: value for name, value in whole.items() if name != key}
        given = {name: value for name, value in part.items() if name != "model_type"}
        ours, theirs = said(part), said(as_published(CONFIG_MAPPING[model_type](**given)))
        assert ours is None or ours == theirs, key


def test_every_directory_with_rotation_is_sorted():
    """A release that adds a rotary model fails here until someone has read the model's code."""
    types = collections.defaultdict(set)
    for name in CONFIG_MAPPING_NAMES:
        types[model_type_to_module_name(name)].add(name)
    sorted_types = {*FAMILIES, *REFUSED, *TEXT_PARTS}
    unread = set()
    for folder in sorted(pathlib.Path(transformers.models.__file__).parent.iterdir()):
        code = "".join(path.read_text() for path in folder.glob("modeling_*.py"))
        if (
            re.search("apply_rotary|RotaryEmbedding", code)
            and not types[folder.name] & sorted_types
        ):
            unread.add(folder.name)
    assert unread == REFUSED_UNREAD


@pytest.mark.parametrize("model_type", sorted(CONFIG_MAPPING_NAMES))
def test_the_default_of_every_class_is_known_or_refused(model_type):
    """A model that is not in the list is refused, whichever layer is asked for."""
    try:
        config = as_published(CONFIG_MAPPING[model_type]())
    except Exception as error:
        pytest.skip(f"{type(error).__name__}: the class has no default that works")
    if checks.answers_of(config):
        inner = flattened(config, {})["model_type"]
        assert inner in FAMILIES
