"""Offers positional encodings for Transformers, as Flax modules over pure functions.

Array names end in their shape, one letter per axis:

    B  batch            H  query heads          D  model width
    T  query tokens     K  key and value heads  A  position axes
    S  key tokens       C  channels of a head   G  query heads for each kv head
"""

import importlib
from typing import TYPE_CHECKING, Any

from posenc_jax.attention import Chunks, attend, combine, logits, zigzag
from posenc_jax.encoding import Encoding, Here
from posenc_jax.keys import Keys
from posenc_jax.pairs import Pairs, Side
from posenc_jax.registry import REGISTRY, make, signature
from posenc_jax.tokens import Tokens

# The names that are imported when they are first asked for, as editors and type checkers see them.
# ``A as A`` marks a name as public.
if TYPE_CHECKING:
    from posenc_jax import functional, positions, pretrained
    from posenc_jax.costs import describe
    from posenc_jax.encodings.absolute.learned import Learned as Learned
    from posenc_jax.encodings.absolute.learned_2d import Learned2D as Learned2D
    from posenc_jax.encodings.absolute.seqpe import SeqPE as SeqPE
    from posenc_jax.encodings.absolute.seqpe import SeqPEInputAdd as SeqPEInputAdd
    from posenc_jax.encodings.absolute.sinusoidal import Sinusoidal as Sinusoidal
    from posenc_jax.encodings.absolute.sinusoidal_2d import Sinusoidal2D as Sinusoidal2D
    from posenc_jax.encodings.bias.alibi import ALiBi as ALiBi
    from posenc_jax.encodings.bias.alibi_2d import ALiBi2D as ALiBi2D
    from posenc_jax.encodings.bias.fire import FIRE as FIRE
    from posenc_jax.encodings.bias.kerple import KerpleLog as KerpleLog
    from posenc_jax.encodings.bias.kerple import KerplePower as KerplePower
    from posenc_jax.encodings.bias.sandwich import Sandwich as Sandwich
    from posenc_jax.encodings.bias.swin_v2 import SwinV2 as SwinV2
    from posenc_jax.encodings.bias.t5 import T5 as T5
    from posenc_jax.encodings.content.cable import CABLE as CABLE
    from posenc_jax.encodings.content.cope import CoPE as CoPE
    from posenc_jax.encodings.content.dape import DAPE as DAPE
    from posenc_jax.encodings.content.deberta import DeBERTa as DeBERTa
    from posenc_jax.encodings.content.fox import FoX as FoX
    from posenc_jax.encodings.content.grape_a import GrapeA as GrapeA
    from posenc_jax.encodings.content.grape_ap import GrapeAP as GrapeAP
    from posenc_jax.encodings.content.grape_m_contextual import GrapeMContextual as GrapeMContextual
    from posenc_jax.encodings.content.inkling import Inkling as Inkling
    from posenc_jax.encodings.content.inkling import Inkling2 as Inkling2
    from posenc_jax.encodings.content.path import PaTH as PaTH
    from posenc_jax.encodings.content.repo import RePo as RePo
    from posenc_jax.encodings.content.selective_rope import SelectiveRoPE as SelectiveRoPE
    from posenc_jax.encodings.content.shaw import Shaw as Shaw
    from posenc_jax.encodings.content.stick_breaking import StickBreaking as StickBreaking
    from posenc_jax.encodings.content.transformer_xl import TransformerXL as TransformerXL
    from posenc_jax.encodings.content.wall import Wall as Wall
    from posenc_jax.encodings.patterns import beam as beam
    from posenc_jax.encodings.patterns import dual_base as dual_base
    from posenc_jax.encodings.patterns import flint as flint
    from posenc_jax.encodings.patterns import global_nope as global_nope
    from posenc_jax.encodings.patterns import global_yarn as global_yarn
    from posenc_jax.encodings.patterns import irope as irope
    from posenc_jax.encodings.patterns import rnope_swa as rnope_swa
    from posenc_jax.encodings.position_maps.dual_chunk import DualChunk as DualChunk
    from posenc_jax.encodings.position_maps.jet_long import JetLong as JetLong
    from posenc_jax.encodings.position_maps.rerope import LeakyReRoPE as LeakyReRoPE
    from posenc_jax.encodings.position_maps.rerope import ReRoPE as ReRoPE
    from posenc_jax.encodings.position_maps.self_extend import SelfExtend as SelfExtend
    from posenc_jax.encodings.rotary.axial_rope import axial_rope as axial_rope
    from posenc_jax.encodings.rotary.circulant_string import CirculantSTRING as CirculantSTRING
    from posenc_jax.encodings.rotary.dinov3 import DINOv3 as DINOv3
    from posenc_jax.encodings.rotary.fope import FoPE as FoPE
    from posenc_jax.encodings.rotary.frequencies.by_parts import Llama3 as Llama3
    from posenc_jax.encodings.rotary.frequencies.by_parts import NTKByParts as NTKByParts
    from posenc_jax.encodings.rotary.frequencies.clipped import Clipped as Clipped
    from posenc_jax.encodings.rotary.frequencies.hope import HoPE as HoPE
    from posenc_jax.encodings.rotary.frequencies.mrrope import MrRoPEPro as MrRoPEPro
    from posenc_jax.encodings.rotary.frequencies.mrrope import MrRoPEUni as MrRoPEUni
    from posenc_jax.encodings.rotary.frequencies.ntk import NTK as NTK
    from posenc_jax.encodings.rotary.frequencies.ntk import DynamicNTK as DynamicNTK
    from posenc_jax.encodings.rotary.frequencies.ntk import NTKCritical as NTKCritical
    from posenc_jax.encodings.rotary.frequencies.pi import DynamicPI as DynamicPI
    from posenc_jax.encodings.rotary.frequencies.pi import (
        PositionInterpolation as PositionInterpolation,
    )
    from posenc_jax.encodings.rotary.frequencies.proportional import Proportional as Proportional
    from posenc_jax.encodings.rotary.frequencies.resonance import Resonance as Resonance
    from posenc_jax.encodings.rotary.frequencies.yarn import DynamicYaRN as DynamicYaRN
    from posenc_jax.encodings.rotary.frequencies.yarn import YaRN as YaRN
    from posenc_jax.encodings.rotary.golden_gate import GoldenGate as GoldenGate
    from posenc_jax.encodings.rotary.grape_m import GrapeM as GrapeM
    from posenc_jax.encodings.rotary.key_offset import KeyOffset as KeyOffset
    from posenc_jax.encodings.rotary.lerope import LeRoPE as LeRoPE
    from posenc_jax.encodings.rotary.longrope import LongRoPE as LongRoPE
    from posenc_jax.encodings.rotary.longrope import longrope2 as longrope2
    from posenc_jax.encodings.rotary.mrope import i_mrope as i_mrope
    from posenc_jax.encodings.rotary.mrope import mhrope as mhrope
    from posenc_jax.encodings.rotary.mrope import mrope as mrope
    from posenc_jax.encodings.rotary.pope import PoPE as PoPE
    from posenc_jax.encodings.rotary.prope import PRoPE as PRoPE
    from posenc_jax.encodings.rotary.rope import RoPE as RoPE
    from posenc_jax.encodings.rotary.rope_mixed import RoPEMixed as RoPEMixed
    from posenc_jax.encodings.rotary.string import STRING as STRING
    from posenc_jax.encodings.rotary.time_rope import time_rope as time_rope
    from posenc_jax.encodings.rotary.value_rope import ValueRoPE as ValueRoPE
    from posenc_jax.encodings.rotary.videorope import hope_hybrid as hope_hybrid
    from posenc_jax.encodings.rotary.videorope import videorope as videorope
    from posenc_jax.encodings.rotary.videorope import videorope_pp as videorope_pp
    from posenc_jax.encodings.rotary.xpos import XPos as XPos
    from posenc_jax.encodings.wrappers.dynamic_short_conv import (
        DynamicShortConv as DynamicShortConv,
    )
    from posenc_jax.encodings.wrappers.kv_shift import KVShift as KVShift
    from posenc_jax.encodings.wrappers.logit_scale import BeamScale as BeamScale
    from posenc_jax.encodings.wrappers.logit_scale import Llama4Temperature as Llama4Temperature
    from posenc_jax.encodings.wrappers.logit_scale import LogN as LogN
    from posenc_jax.encodings.wrappers.logit_scale import LogScale as LogScale
    from posenc_jax.encodings.wrappers.logit_scale import MinistralScale as MinistralScale
    from posenc_jax.encodings.wrappers.logit_scale import SSMax as SSMax
    from posenc_jax.encodings.wrappers.randomized import RandomFloat as RandomFloat
    from posenc_jax.encodings.wrappers.randomized import Randomized as Randomized
    from posenc_jax.encodings.wrappers.short_conv import ShortConv as ShortConv
    from posenc_jax.encodings.wrappers.soft_cap import SoftCap as SoftCap
    from posenc_jax.flax import linen
    from posenc_jax.flax.attention_fn import attention_fn
    from posenc_jax.hf import from_hf
    from posenc_jax.hf.pattern import layers_from_hf, sinks_from_hf
    from posenc_jax.model.cache import Cache
    from posenc_jax.model.decode import generate
    from posenc_jax.model.layers import Layers
    from posenc_jax.model.loss import cross_entropy
    from posenc_jax.model.transformer import Transformer

__all__ = [
    "REGISTRY",
    "Cache",
    "Chunks",
    "Encoding",
    "Here",
    "Keys",
    "Layers",
    "Pairs",
    "Side",
    "Tokens",
    "Transformer",
    "attend",
    "attention_fn",
    "combine",
    "cross_entropy",
    "describe",
    "from_hf",
    "functional",
    "generate",
    "layers_from_hf",
    "linen",
    "logits",
    "make",
    "positions",
    "pretrained",
    "signature",
    "sinks_from_hf",
    "zigzag",
]
__version__ = "0.3.0"

# Names that are imported when they are first asked for, and the module of each.
_LATER = dict(where.split(":")[::-1] for where in REGISTRY.values()) | {
    "Cache": "posenc_jax.model.cache",
    "Layers": "posenc_jax.model.layers",
    "Transformer": "posenc_jax.model.transformer",
    "attention_fn": "posenc_jax.flax.attention_fn",
    "cross_entropy": "posenc_jax.model.loss",
    "describe": "posenc_jax.costs",
    "from_hf": "posenc_jax.hf",
    "generate": "posenc_jax.model.decode",
    "layers_from_hf": "posenc_jax.hf.pattern",
    "sinks_from_hf": "posenc_jax.hf.pattern",
}
_MODULES = ("flax", "functional", "hf", "model", "positions", "pretrained")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"posenc_jax.{name}")
    if name == "linen":
        return importlib.import_module("posenc_jax.flax.linen")
    if name not in _LATER:
        raise AttributeError(f"module 'posenc_jax' has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*__all__, *_LATER, "__version__"})
