"""Frequency rules of the rotary family say how fast each channel pair rotates.

A new rule is one file here, with a subclass of ``Frequencies``, and one line in the registry that
names the class; ``make`` then builds ``RoPE`` with it.
"""

from posenc_jax.encodings.rotary.frequencies.base import Default, Frequencies, geometric, turns_in
from posenc_jax.encodings.rotary.frequencies.by_parts import Llama3, NTKByParts
from posenc_jax.encodings.rotary.frequencies.clipped import Clipped
from posenc_jax.encodings.rotary.frequencies.hope import HoPE
from posenc_jax.encodings.rotary.frequencies.mrrope import MrRoPEPro, MrRoPEUni
from posenc_jax.encodings.rotary.frequencies.ntk import NTK, DynamicNTK, NTKCritical
from posenc_jax.encodings.rotary.frequencies.pi import DynamicPI, PositionInterpolation
from posenc_jax.encodings.rotary.frequencies.proportional import Proportional
from posenc_jax.encodings.rotary.frequencies.resonance import Resonance
from posenc_jax.encodings.rotary.frequencies.yarn import DynamicYaRN, YaRN

__all__ = [
    "NTK",
    "Clipped",
    "Default",
    "DynamicNTK",
    "DynamicPI",
    "DynamicYaRN",
    "Frequencies",
    "HoPE",
    "Llama3",
    "MrRoPEPro",
    "MrRoPEUni",
    "NTKByParts",
    "NTKCritical",
    "PositionInterpolation",
    "Proportional",
    "Resonance",
    "YaRN",
    "geometric",
    "turns_in",
]
