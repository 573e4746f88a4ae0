# Written by `python -m docs.site.stub`.
from collections.abc import Sequence
from typing import Literal, overload
import jax
import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any
import jax
import numpy as np
from flax import nnx
from posenc_jax.checks import check_encoding, check_rngs
from posenc_jax.encoding import Encoding, check_overrides
from posenc_jax.encodings.rotary.frequencies import Frequencies
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.fields import check_choice, count_of
from posenc_jax.model.layers import Layers
from posenc_jax.model.stacking import drawn_together
REGISTRY: dict[str, str]
PATTERNS: tuple[str, ...]
SIZES: tuple[str, ...]
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.absolute.learned import Learned
from posenc_jax.encodings.absolute.learned_2d import Learned2D
from posenc_jax.encodings.absolute.seqpe import SeqPE
from posenc_jax.encodings.absolute.sinusoidal import Sinusoidal
from posenc_jax.encodings.absolute.sinusoidal_2d import Sinusoidal2D
from posenc_jax.encodings.bias.alibi import ALiBi
from posenc_jax.encodings.bias.alibi_2d import ALiBi2D
from posenc_jax.encodings.bias.fire import FIRE
from posenc_jax.encodings.bias.kerple import KerpleLog
from posenc_jax.encodings.bias.kerple import KerplePower
from posenc_jax.encodings.bias.sandwich import Sandwich
from posenc_jax.encodings.bias.swin_v2 import SwinV2
from posenc_jax.encodings.bias.t5 import T5
from posenc_jax.encodings.content.cable import CABLE
from posenc_jax.encodings.content.cope import CoPE
from posenc_jax.encodings.content.dape import DAPE
from posenc_jax.encodings.content.deberta import DeBERTa
from posenc_jax.encodings.content.fox import FoX
from posenc_jax.encodings.content.grape_a import GrapeA
from posenc_jax.encodings.content.grape_ap import GrapeAP
from posenc_jax.encodings.content.grape_m_contextual import GrapeMContextual
from posenc_jax.encodings.content.inkling import Inkling
from posenc_jax.encodings.content.inkling import Inkling2
from posenc_jax.encodings.content.path import PaTH
from posenc_jax.encodings.content.repo import RePo
from posenc_jax.encodings.content.selective_rope import SelectiveRoPE
from posenc_jax.encodings.content.shaw import Shaw
from posenc_jax.encodings.content.stick_breaking import StickBreaking
from posenc_jax.encodings.content.transformer_xl import TransformerXL
from posenc_jax.encodings.content.wall import Wall
from posenc_jax.encodings.position_maps.dual_chunk import DualChunk
from posenc_jax.encodings.position_maps.jet_long import JetLong
from posenc_jax.encodings.position_maps.rerope import LeakyReRoPE
from posenc_jax.encodings.position_maps.rerope import ReRoPE
from posenc_jax.encodings.position_maps.self_extend import SelfExtend
from posenc_jax.encodings.rotary.circulant_string import CirculantSTRING
from posenc_jax.encodings.rotary.dinov3 import DINOv3
from posenc_jax.encodings.rotary.fope import FoPE
from posenc_jax.encodings.rotary.golden_gate import GoldenGate
from posenc_jax.encodings.rotary.grape_m import GrapeM
from posenc_jax.encodings.rotary.key_offset import KeyOffset
from posenc_jax.encodings.rotary.lerope import LeRoPE
from posenc_jax.encodings.rotary.longrope import LongRoPE
from posenc_jax.encodings.rotary.pope import PoPE
from posenc_jax.encodings.rotary.prope import PRoPE
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.encodings.rotary.rope_mixed import RoPEMixed
from posenc_jax.encodings.rotary.string import STRING
from posenc_jax.encodings.rotary.value_rope import ValueRoPE
from posenc_jax.encodings.rotary.xpos import XPos
from posenc_jax.encodings.wrappers.kv_shift import KVShift
from posenc_jax.encodings.wrappers.logit_scale import BeamScale
from posenc_jax.encodings.wrappers.logit_scale import Llama4Temperature
from posenc_jax.encodings.wrappers.logit_scale import LogN
from posenc_jax.encodings.wrappers.logit_scale import LogScale
from posenc_jax.encodings.wrappers.logit_scale import MinistralScale
from posenc_jax.encodings.wrappers.logit_scale import SSMax
from posenc_jax.encodings.wrappers.randomized import RandomFloat
from posenc_jax.encodings.wrappers.randomized import Randomized
from posenc_jax.encodings.wrappers.short_conv import ShortConv
from posenc_jax.encodings.wrappers.soft_cap import SoftCap
from posenc_jax.model.layers import Layers

@overload
def make(name: Literal['nope'], *, num_heads: int | None=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> Encoding:
    ...

@overload
def make(name: Literal['sinusoidal'], *, model_dim: int, base: float=..., layout: str=..., token_scale: float | None=..., num_heads: int | None=..., num_kv_heads: int | None=..., head_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> Sinusoidal:
    ...

@overload
def make(name: Literal['learned'], *, model_dim: int, train_length: int, rngs: nnx.Rngs | None, out_of_range: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., head_dim: int | None=..., num_layers: int | None=...) -> Learned:
    ...

@overload
def make(name: Literal['sinusoidal_2d'], *, model_dim: int, num_axes: int=..., base: float=..., token_scale: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., head_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> Sinusoidal2D:
    ...

@overload
def make(name: Literal['learned_2d'], *, model_dim: int, rngs: nnx.Rngs | None, train_length: int | None=..., grid: tuple[int, ...] | None=..., out_of_range: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., head_dim: int | None=..., num_layers: int | None=...) -> Learned2D:
    ...

@overload
def make(name: Literal['seqpe'], *, num_heads: int, head_dim: int, model_dim: int, train_length: int, rngs: nnx.Rngs | None, num_kv_heads: int | None=..., hook: str=..., pe_qk: str=..., scalar_scale: float=..., num_axes: int=..., max_position: int=..., encoder_layers: int=..., encoder_heads: int | None=..., bidirectional: bool=..., mask_padding: bool=..., temperature: float=..., shift_probability: float=..., contrastive_weight: float=..., transfer_weight: float=..., num_pivots: int=..., num_candidates: int=..., num_offsets: int=..., num_layers: int | None=...) -> SeqPE:
    ...

@overload
def make(name: Literal['randomized'], *, over: Encoding | str | Mapping[str, Any]=..., max_length: int=..., evaluation_seed: int=..., num_heads: int | None=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> Randomized:
    ...

@overload
def make(name: Literal['random_float'], *, train_length: int, over: Encoding | str | Mapping[str, Any]=..., max_length: int=..., num_heads: int | None=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> RandomFloat:
    ...

@overload
def make(name: Literal['rope'], *, head_dim: int, base: float=..., frequencies: Frequencies | None=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['rope_mixed'], *, num_kv_heads: int, head_dim: int, rngs: nnx.Rngs | None, base: float=..., layout: str=..., num_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> RoPEMixed:
    ...

@overload
def make(name: Literal['string'], *, head_dim: int, num_kv_heads: int, rngs: nnx.Rngs | None, num_axes: int=..., base: float=..., layout: str=..., num_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> STRING:
    ...

@overload
def make(name: Literal['circulant_string'], *, head_dim: int, num_kv_heads: int, rngs: nnx.Rngs | None, num_axes: int=..., base: float=..., block_size: int | None=..., num_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> CirculantSTRING:
    ...

@overload
def make(name: Literal['golden_gate'], *, num_kv_heads: int, head_dim: int, num_axes: int=..., slowest: float=..., fastest: float=..., zero_share: float=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> GoldenGate:
    ...

@overload
def make(name: Literal['dinov3'], *, head_dim: int, base: float=..., layout: str=..., shift: float | None=..., jitter: float | None=..., rescale: float | None=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> DINOv3:
    ...

@overload
def make(name: Literal['axial_rope'], *, head_dim: int, num_axes: int=..., base: float=..., frequencies: Frequencies | None=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['pi'], *, head_dim: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., factor: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['dynamic_pi'], *, head_dim: int, train_length: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['ntk'], *, head_dim: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., factor: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['ntk_critical'], *, head_dim: int, train_length: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., factor: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['dynamic_ntk'], *, head_dim: int, train_length: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., factor: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['ntk_by_parts'], *, head_dim: int, train_length: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., factor: float=..., alpha: float=..., beta: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['llama3'], *, head_dim: int, train_length: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., factor: float=..., low_freq_factor: float=..., high_freq_factor: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['yarn'], *, head_dim: int, train_length: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., factor: float=..., beta_fast: float=..., beta_slow: float=..., ramp: str=..., truncate: bool=..., attention_factor: float | None=..., mscale: float | None=..., mscale_all_dim: float | None=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['dynamic_yarn'], *, head_dim: int, train_length: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., beta_fast: float=..., beta_slow: float=..., ramp: str=..., truncate: bool=..., attention_factor: float | None=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['mrrope_uni'], *, head_dim: int, train_length: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., factor: float=..., beta_fast: float=..., beta_slow: float=..., attention_factor: float | None=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['mrrope_pro'], *, head_dim: int, train_length: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., factor: float=..., beta_fast: float=..., beta_slow: float=..., attention_factor: float | None=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['longrope'], *, head_dim: int, train_length: int, factor: float=..., long_factor: Sequence[float] | float | None=..., short_factor: Sequence[float] | float | None=..., attention_factor: float | None=..., short_attention_factor: float | None=..., start_tokens: int=..., base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> LongRoPE:
    ...

@overload
def make(name: Literal['longrope2'], *, head_dim: int, train_length: int, factor: float=..., critical_pair: int | None=..., tail_factors: Sequence[float] | float | None=..., attention_factor: float | None=..., base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> LongRoPE:
    ...

@overload
def make(name: Literal['hope'], *, head_dim: int, train_length: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., cut_cycles: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['p_rope'], *, head_dim: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., fraction: float=..., factor: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['clipped_rope'], *, head_dim: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., clipped_pairs: int | None=..., taper: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['resonance'], *, head_dim: int, base: float=..., axes: tuple[int, ...] | tuple[tuple[int, ...], ...] | None=..., rotary_dim: int | None=..., layout: str=..., frequencies: Frequencies | None=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['mrope'], *, head_dim: int, sections: tuple[int, ...] | None=..., base: float=..., frequencies: Frequencies | None=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['i_mrope'], *, head_dim: int, sections: tuple[int, ...] | None=..., order: tuple[int, ...]=..., base: float=..., frequencies: Frequencies | None=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['mhrope'], *, num_kv_heads: int, head_dim: int, axis_heads: tuple[int, ...] | None=..., base: float=..., frequencies: Frequencies | None=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['videorope'], *, head_dim: int, sections: tuple[int, ...] | None=..., base: float=..., frequencies: Frequencies | None=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['videorope_pp'], *, head_dim: int, train_length: int, factor: float=..., sections: tuple[int, ...] | None=..., base: float=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['hope_hybrid'], *, head_dim: int, sections: tuple[int, ...] | None=..., base: float=..., frequencies: Frequencies | None=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['time_rope'], *, head_dim: int, sections: tuple[int, ...] | None=..., base: float=..., frequencies: Frequencies | None=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> RoPE:
    ...

@overload
def make(name: Literal['prope'], *, head_dim: int, time_channels: int=..., base: float=..., time_base: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> PRoPE:
    ...

@overload
def make(name: Literal['lerope'], *, head_dim: int, base: float=..., frequencies: Frequencies | None=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> LeRoPE:
    ...

@overload
def make(name: Literal['value_rope'], *, head_dim: int, base: float=..., frequencies: Frequencies | None=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> ValueRoPE:
    ...

@overload
def make(name: Literal['grape_m'], *, head_dim: int, num_kv_heads: int, rngs: nnx.Rngs | None, base: float=..., layout: str=..., by_head: bool=..., num_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> GrapeM:
    ...

@overload
def make(name: Literal['xpos'], *, head_dim: int, base: float=..., rotary_dim: int | None=..., layout: str=..., scale_base: float=..., gamma: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> XPos:
    ...

@overload
def make(name: Literal['fope'], *, num_kv_heads: int, head_dim: int, train_length: int, rngs: nnx.Rngs | None, base: float=..., rotary_dim: int | None=..., layout: str=..., gain: float=..., padding: str=..., learned: bool=..., num_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=...) -> FoPE:
    ...

@overload
def make(name: Literal['pope'], *, num_kv_heads: int, head_dim: int, rngs: nnx.Rngs | None, base: float=..., phase_init: str=..., num_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> PoPE:
    ...

@overload
def make(name: Literal['rerope'], *, head_dim: int, base: float=..., rotary_dim: int | None=..., layout: str=..., window: int=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> ReRoPE:
    ...

@overload
def make(name: Literal['leaky_rerope'], *, head_dim: int, base: float=..., rotary_dim: int | None=..., layout: str=..., window: int=..., factor: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> LeakyReRoPE:
    ...

@overload
def make(name: Literal['self_extend'], *, head_dim: int, base: float=..., rotary_dim: int | None=..., layout: str=..., window: int=..., group_size: int=..., floor: bool=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> SelfExtend:
    ...

@overload
def make(name: Literal['jet_long'], *, head_dim: int, train_length: int, base: float=..., rotary_dim: int | None=..., layout: str=..., window: int | None=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> JetLong:
    ...

@overload
def make(name: Literal['dual_chunk'], *, head_dim: int, train_length: int, base: float=..., rotary_dim: int | None=..., layout: str=..., chunk_size: int | None=..., local_window: int | None=..., original_length: int | None=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> DualChunk:
    ...

@overload
def make(name: Literal['alibi'], *, num_heads: int, slope_scale: float=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> ALiBi:
    ...

@overload
def make(name: Literal['alibi_2d'], *, num_heads: int, slope_scale: float=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> ALiBi2D:
    ...

@overload
def make(name: Literal['swin_v2'], *, num_heads: int, rngs: nnx.Rngs | None, grid: tuple[int, int]=..., hidden: int=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> SwinV2:
    ...

@overload
def make(name: Literal['t5'], *, num_heads: int, model_dim: int, rngs: nnx.Rngs | None, num_buckets: int=..., max_distance: int=..., bidirectional: bool=..., table_scale: float=..., num_kv_heads: int | None=..., head_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> T5:
    ...

@overload
def make(name: Literal['kerple_log'], *, num_heads: int, rngs: nnx.Rngs | None, num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> KerpleLog:
    ...

@overload
def make(name: Literal['kerple_power'], *, num_heads: int, rngs: nnx.Rngs | None, num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> KerplePower:
    ...

@overload
def make(name: Literal['sandwich'], *, num_heads: int, channels: int=..., base: float=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> Sandwich:
    ...

@overload
def make(name: Literal['fire'], *, num_heads: int, rngs: nnx.Rngs | None, hidden: int=..., init_length: float=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> FIRE:
    ...

@overload
def make(name: Literal['shaw'], *, head_dim: int, rngs: nnx.Rngs | None, max_distance: int=..., values: bool=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> Shaw:
    ...

@overload
def make(name: Literal['transformer_xl'], *, num_heads: int, head_dim: int, model_dim: int, rngs: nnx.Rngs | None, base: float=..., num_kv_heads: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> TransformerXL:
    ...

@overload
def make(name: Literal['deberta'], *, num_heads: int, head_dim: int, model_dim: int, rngs: nnx.Rngs | None, max_distance: int=..., num_buckets: int | None=..., p2c_row: str=..., num_kv_heads: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> DeBERTa:
    ...

@overload
def make(name: Literal['inkling'], *, num_heads: int, model_dim: int, rngs: nnx.Rngs | None, rank: int=..., extent: int=..., log_floor: int | None=..., log_scale: float=..., num_kv_heads: int | None=..., head_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> Inkling:
    ...

@overload
def make(name: Literal['inkling2'], *, num_heads: int, head_dim: int, model_dim: int, rngs: nnx.Rngs | None, rank: int=..., extent: int=..., log_floor: int | None=..., log_scale: float=..., clip: float=..., vector_clip: float=..., num_kv_heads: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> Inkling2:
    ...

@overload
def make(name: Literal['grape_a'], *, num_heads: int, head_dim: int, rngs: nnx.Rngs | None, gate: str=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> GrapeA:
    ...

@overload
def make(name: Literal['grape_ap'], *, num_heads: int, model_dim: int, rngs: nnx.Rngs | None, width: int=..., num_kv_heads: int | None=..., head_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> GrapeAP:
    ...

@overload
def make(name: Literal['dape'], *, num_heads: int, rngs: nnx.Rngs | None, bias: str=..., hidden: int=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> DAPE:
    ...

@overload
def make(name: Literal['cope'], *, head_dim: int, rngs: nnx.Rngs | None, num_positions: int=..., nodiv: bool=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> CoPE:
    ...

@overload
def make(name: Literal['stick_breaking'], *, num_heads: int | None=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> StickBreaking:
    ...

@overload
def make(name: Literal['fox'], *, num_heads: int, model_dim: int, rngs: nnx.Rngs | None, bias_init: float=..., num_kv_heads: int | None=..., head_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> FoX:
    ...

@overload
def make(name: Literal['cable'], *, num_heads: int, model_dim: int, rngs: nnx.Rngs | None, bias_init: float=..., num_kv_heads: int | None=..., head_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> CABLE:
    ...

@overload
def make(name: Literal['grape_m_contextual'], *, head_dim: int, num_kv_heads: int, model_dim: int, rngs: nnx.Rngs | None, base: float=..., layout: str=..., by_head: bool=..., num_heads: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> GrapeMContextual:
    ...

@overload
def make(name: Literal['repo'], *, head_dim: int, num_kv_heads: int, model_dim: int, rngs: nnx.Rngs | None, base: float=..., layout: str=..., hidden: int | None=..., num_heads: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> RePo:
    ...

@overload
def make(name: Literal['wall'], *, num_heads: int, head_dim: int, model_dim: int, rngs: nnx.Rngs | None, bias_init: float=..., forget_gate: bool=..., num_kv_heads: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> Wall:
    ...

@overload
def make(name: Literal['path'], *, num_heads: int, num_kv_heads: int, head_dim: int, model_dim: int, rngs: nnx.Rngs | None, rank: int | None=..., width: int=..., forget_gate: bool=..., num_layers: int | None=..., train_length: int | None=...) -> PaTH:
    ...

@overload
def make(name: Literal['selective_rope'], *, num_heads: int, num_kv_heads: int, head_dim: int, model_dim: int, rngs: nnx.Rngs | None, base: float=..., temperature: float=..., rank: int=..., width: int=..., gate: bool=..., bias: bool=..., num_layers: int | None=..., train_length: int | None=...) -> SelectiveRoPE:
    ...

@overload
def make(name: Literal['logn'], *, train_length: int, over: Encoding | str | Mapping[str, Any]=..., num_heads: int | None=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> LogN:
    ...

@overload
def make(name: Literal['ssmax'], *, num_heads: int, train_length: int, over: Encoding | str | Mapping[str, Any]=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> SSMax:
    ...

@overload
def make(name: Literal['log_scale'], *, num_heads: int, over: Encoding | str | Mapping[str, Any]=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> LogScale:
    ...

@overload
def make(name: Literal['ministral_scale'], *, train_length: int, over: Encoding | str | Mapping[str, Any]=..., attn_scale: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> MinistralScale:
    ...

@overload
def make(name: Literal['beam_scale'], *, over: Encoding | str | Mapping[str, Any]=..., scale: float=..., exponent: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> BeamScale:
    ...

@overload
def make(name: Literal['llama4_temperature'], *, over: Encoding | str | Mapping[str, Any]=..., floor_scale: int=..., attn_scale: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> Llama4Temperature:
    ...

@overload
def make(name: Literal['soft_cap'], *, over: Encoding | str | Mapping[str, Any]=..., cap: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> SoftCap:
    ...

@overload
def make(name: Literal['kv_shift'], *, num_kv_heads: int, model_dim: int, rngs: nnx.Rngs | None, over: Encoding | str | Mapping[str, Any]=..., num_heads: int | None=..., head_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> KVShift:
    ...

@overload
def make(name: Literal['key_offset'], *, head_dim: int, base: float=..., rotary_dim: int | None=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> KeyOffset:
    ...

@overload
def make(name: Literal['short_conv'], *, num_kv_heads: int, head_dim: int, rngs: nnx.Rngs | None, width: int=..., over: Encoding | str | Mapping[str, Any]=..., num_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=...) -> ShortConv:
    ...

@overload
def make(name: Literal['irope'], *, head_dim: int, base: float=..., interval: int=..., floor_scale: int=..., attn_scale: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> Layers:
    ...

@overload
def make(name: Literal['rnope_swa'], *, head_dim: int, base: float=..., interval: int=..., window: int=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> Layers:
    ...

@overload
def make(name: Literal['dual_base'], *, head_dim: int, local_base: float=..., global_base: float=..., global_factor: float=..., interval: int=..., window: int=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> Layers:
    ...

@overload
def make(name: Literal['global_nope'], *, head_dim: int, num_layers: int, base: float=..., interval: int=..., window: int | None=..., from_end: bool=..., layout: str=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> Layers:
    ...

@overload
def make(name: Literal['global_yarn'], *, head_dim: int, train_length: int, base: float=..., factor: float=..., interval: int=..., window: int=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., num_layers: int | None=..., rngs: nnx.Rngs | None=...) -> Layers:
    ...

@overload
def make(name: Literal['beam'], *, head_dim: int, num_layers: int, base: float=..., interval: int=..., window: int=..., scale: float=..., exponent: float=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> Layers:
    ...

@overload
def make(name: Literal['flint'], *, head_dim: int, num_layers: int, base: float=..., window: int=..., num_heads: int | None=..., num_kv_heads: int | None=..., model_dim: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> Layers:
    ...

@overload
def make(name: str, *, num_heads: int | None=..., num_kv_heads: int | None=..., head_dim: int | None=..., model_dim: int | None=..., num_layers: int | None=..., train_length: int | None=..., rngs: nnx.Rngs | None=...) -> Any:
    ...

def lookup(name: str) -> Callable[..., Any]:
    ...

def check_scheme(name: str) -> None:
    ...

def signature(name: str) -> inspect.Signature:
    ...

def own_keywords(name: str) -> tuple[str, ...]:
    ...

def keywords(build: Callable) -> dict[str, inspect.Parameter]:
    ...

def inner_keywords(over: str | Mapping[str, Any]) -> dict[str, Any]:
    ...

def suggest(word: str, valid: Iterable[str]) -> str:
    ...
