"""Writes test vectors of published configs, by which other projects can test their rotary code.

    python -m parity.conformance --out=conformance.zip

For each config it writes the inverse frequencies, the attention factor, cosines and sines at some
positions, and the logits of two fixed vectors at every pair of these positions. The archive has
them in ``conformance.json``, and ``docs/how-to/conformance.md``, which describes this file and
reads it with plain Python, as its ``README.md``.
"""

import argparse
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from posenc_jax.attention import logits
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.wrapper import innermost
from posenc_jax.encodings.rotary.rope import RoPE, rotates_by_rule
from posenc_jax.hf import from_hf

PAGE = Path(__file__).parents[1] / "docs/how-to/conformance.md"
POSITIONS = (0, 1, 1000, 8000, 60000)


class Case(NamedTuple):
    """Holds a config, and the keywords of ``from_hf`` that say which layer is meant."""

    config: Mapping[str, Any]
    call: Mapping[str, Any] = {}


def _model(kind: str, width: int, heads: int, **keys: Any) -> dict[str, Any]:
    sizes = {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": 12}
    return {"model_type": kind} | sizes | keys


_LINEAR = {"rope_type": "linear", "factor": 4.0}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3 |= {"original_max_position_embeddings": 8192}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
_MLA = dict(qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128)
_MSCALE = {"rope_type": "yarn", "factor": 40.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0}
_MSCALE |= {"mscale_all_dim": 1.0, "original_max_position_embeddings": 4096}
_MINISTRAL = {"rope_type": "yarn", "factor": 16.0, "beta_fast": 32.0, "beta_slow": 1.0}
_MINISTRAL |= {"original_max_position_embeddings": 16384, "rope_theta": 1e6, "mscale": 1.0}
_MINISTRAL |= {"mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}
_GEMMA3 = _model("gemma3_text", 2560, 8, head_dim=256, rope_theta=1e6, rope_local_base_freq=1e4)
_GEMMA3 |= {"sliding_window": 1024, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
_QWEN2_VL = {"rope_type": "default", "mrope_section": [16, 24, 24]}

# The keys about positions of published configs, one config for each kind of pitfall.
CASES = {
    "llama": Case(_model("llama", 4096, 32, rope_theta=1e4)),
    "llama3": Case(_model("llama", 4096, 32, rope_theta=5e5, rope_scaling=_LLAMA3)),
    "linear": Case(_model("llama", 4096, 32, rope_theta=1e4, rope_scaling=_LINEAR)),
    "yarn": Case(_model("qwen2", 3584, 28, rope_theta=1e6, rope_scaling=_YARN)),
    "yarn_mscale": Case(
        _model("deepseek_v3", 7168, 128, rope_theta=1e4, rope_scaling=_MSCALE, **_MLA)
    ),
    "first_quarter": Case(_model("gpt_neox", 2048, 16, rotary_emb_base=1e4, rotary_pct=0.25)),
    "half_interleaved": Case(
        _model("glm4", 4096, 32, head_dim=128, rope_theta=1e4, partial_rotary_factor=0.5)
    ),
    "interleaved": Case(_model("cohere", 8192, 64, rope_theta=8e6)),
    "local_layers": Case(_GEMMA3, {"layer_type": "sliding_attention"}),
    "global_layers": Case(_GEMMA3, {"layer_type": "full_attention"}),
    "scaled_queries": Case(_model("ministral3", 4096, 32, rope_parameters=_MINISTRAL)),
    "several_axes": Case(_model("qwen2_vl_text", 3584, 28, rope_theta=1e6, rope_scaling=_QWEN2_VL)),
}


def vectors(case: Case) -> dict[str, Any]:
    """Returns the vectors of one config, as plain data.

    ``axes`` is the position axis of each pair, or None where there is one axis; positions are the
    same on every axis. ``logits[m][n]`` is that of the query at ``positions[m]`` and the key at
    ``positions[n]``, over the square root of the head's width, and times ``query_scale[m]``.

    Raises:
      ValueError: the config is not one of RoPE.
    """
    encoding = from_hf(case.config, **case.call)
    rope = _rope(encoding)
    inv_freq, factor = rope.frequencies(rope.rotary_dim, rope.base, float(POSITIONS[-1] + 1))
    places_1T = np.array([POSITIONS], np.int32)
    scored, plain = (_logits(scheme, rope.head_dim, places_1T) for scheme in (encoding, rope))
    cos, sin = (np.asarray(table)[0, :, 0] for table in rope.at(places_1T).tokens.made)
    return {
        "config": dict(case.config),
        "call": dict(case.call),
        "layout": rope.layout,
        "head_dim": rope.head_dim,
        "rotary_dim": rope.rotary_dim,
        "axes": rope.axes,
        # All digits: at position 60,000 an error in the ninth digit is one in an angle's fifth.
        "inv_freq": np.asarray(inv_freq, np.float64).tolist(),
        "attention_factor": float(factor),
        "positions": list(POSITIONS),
        "cos": _numbers(cos),
        "sin": _numbers(sin),
        "query": _numbers(_query(rope.head_dim)),
        "key": _numbers(_key(rope.head_dim)),
        # At distance 0 the two differ only by the scale.
        "query_scale": _numbers(np.diagonal(scored) / np.diagonal(plain)),
        "logits": _numbers(scored),
    }


def _rope(encoding: Encoding) -> RoPE:
    """Returns the RoPE inside wrappers, which scale its queries."""
    encoding = innermost(encoding)
    if not rotates_by_rule(encoding):
        raise ValueError(
            f"the config has {type(encoding).__name__}, and vectors are of RoPE alone, under any "
            "rule of frequencies: give a config of another rope_type"
        )
    return encoding


def _query(width: int) -> np.ndarray:
    return np.array([math.sin(1.0 + channel) for channel in range(width)])


def _key(width: int) -> np.ndarray:
    return np.array([math.cos(2.0 * channel) for channel in range(width)])


def _logits(encoding, width, places_1T):
    """Returns the logits of every position with every other, ``[T, T]``."""
    shape = (1, len(POSITIONS), 1, width)
    q, k = (np.broadcast_to(x.astype(np.float32), shape) for x in (_query(width), _key(width)))
    here = encoding.at(places_1T)
    return np.asarray(jax.jit(logits)(here, q, k)[0, 0], np.float64)


def _numbers(values) -> Any:
    """Returns nested lists of numbers, with enough digits to distinguish float32 numbers."""
    values = np.asarray(values, np.float64)
    if values.ndim:
        return [_numbers(value) for value in values]
    return float(f"{float(values):.9g}")


def conformance() -> dict[str, Any]:
    """Returns the content of ``conformance.json``."""
    return {"format": 1, "cases": {name: vectors(case) for name, case in CASES.items()}}


def write(path: Path) -> None:
    """Writes the archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.md", PAGE.read_text())
        archive.writestr("conformance.json", json.dumps(conformance()) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("conformance.zip"))
    path = parser.parse_args().out
    write(path)
    print(f"{len(CASES)} cases: {path}")


if __name__ == "__main__":
    main()
