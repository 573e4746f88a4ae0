"""Times the same attention in JAX's own functions and in PyTorch, if it is installed.

The other libraries are given the bias that our scheme adds to the logits; each record has the
distance of their output from ours. They rotate no queries or keys: compare our times under ``rope``
with theirs under ``nope``.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.attention import Shape, build, gradient, operands, run
from benchmarks.common import timed
from posenc_jax.attention import logits
from posenc_jax.positions import text

BY_DISTANCE = ("alibi", "t5", "kerple_log")  # schemes whose bias is a table by distance
_MOST_BIAS = 2**30  # numbers in a bias that is written out


def rivals(name: str, shape: Shape) -> Iterator[dict[str, Any]]:
    """Yields the times of other libraries under a scheme; nothing if they cannot express it."""
    if name != "nope" and name not in BY_DISTANCE:
        return
    encoding, arguments = build(name, shape), operands(shape)
    expected = np.asarray(jax.jit(run)(encoding, *arguments), np.float32)
    table_HT = None if name == "nope" else _by_distance(encoding, shape)
    bias_HTT = None
    if table_HT is not None and shape.logits <= _MOST_BIAS * shape.batch:
        position = np.arange(shape.length)
        bias_HTT = table_HT[:, np.maximum(position[:, None] - position, 0)]
    calls: dict[str, Any] = {}
    if name == "nope" or bias_HTT is not None:
        calls |= _jax_calls(arguments, bias_HTT)
    calls |= _torch_calls(name, arguments, bias_HTT, table_HT)
    for who, (forward, backward, wait) in calls.items():
        try:
            distance = np.abs(_float32(forward()) - expected).max()
            about = {"distance": float(distance / np.abs(expected).max())}
            yield shape.record(name, who, timed(forward, wait), with_gradient=False) | about
            yield shape.record(name, who, timed(backward, wait), with_gradient=True) | about
        except Exception as error:  # a limit of another library is not an error of ours
            reason = f"{type(error).__name__}: {error}"[:200]
            yield {"kind": "absent", "scheme": name, "who": who, "reason": reason}


def _by_distance(encoding, shape: Shape) -> jax.Array:
    """Returns what the scheme adds to a logit, by head and distance: float32 ``[H, T]``."""
    here = encoding.at(text(shape.length))
    zeros = jnp.zeros((1, shape.length, shape.heads, shape.head_dim))
    last = here.part(shape.length - 1, 1)
    # The last query sees each distance once, the largest first.
    return logits(last, zeros[:, -1:], here.keys(zeros, zeros))[0, :, 0, ::-1]


def _float32(out) -> np.ndarray:
    """Returns an array of either library on the host."""
    return np.asarray(out, np.float32) if isinstance(out, jax.Array) else out.float().cpu().numpy()


def _jax_calls(arguments, bias_HTT) -> dict[str, Any]:
    """Returns calls of ``jax.nn.dot_product_attention`` with XLA's and cuDNN's kernels."""
    q, k, v, _ = arguments
    given = q, k, v, None if bias_HTT is None else bias_HTT[None].astype(q.dtype)
    calls = {}
    for library in ("xla", "cudnn"):
        attend = functools.partial(
            jax.nn.dot_product_attention, is_causal=True, implementation=library
        )
        functions = jax.jit(attend), jax.jit(gradient(attend))
        both = (functools.partial(function, *given) for function in functions)
        calls[f"jax.nn, {library}"] = *both, jax.block_until_ready
    return calls


def _torch_calls(name, arguments, bias_HTT, table_HT) -> dict[str, Any]:
    """Returns calls of PyTorch's scaled dot-product attention, and of compiled FlexAttention."""
    try:
        import torch
        from torch.nn.attention import flex_attention as flex
    except ImportError:
        return {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wait = (lambda _: torch.cuda.synchronize()) if device == "cuda" else (lambda _: None)

    def tensor(array, dtype=torch.bfloat16):
        return torch.tensor(np.asarray(array, np.float32)).to(device, dtype)

    qkv = [tensor(x).transpose(1, 2).contiguous().requires_grad_(True) for x in arguments[:3]]
    length, sdpa = qkv[0].shape[2], torch.nn.functional.scaled_dot_product_attention
    attend = {}
    if name == "nope":
        attend["PyTorch SDPA"] = lambda: sdpa(*qkv, is_causal=True)
    elif bias_HTT is not None:
        visible = np.tril(np.ones((length, length), bool))
        mask = tensor(np.where(visible, np.asarray(bias_HTT), -np.inf))
        attend["PyTorch SDPA, bias written out"] = lambda: sdpa(*qkv, attn_mask=mask)
    score = None if name == "nope" else _score_mod(name, tensor(table_HT, torch.float32))
    blocks = flex.create_block_mask(_is_before, None, None, length, length, device=device)
    compiled = torch.compile(flex.flex_attention)
    attend["FlexAttention"] = lambda: compiled(*qkv, score_mod=score, block_mask=blocks)

    def forward(call):
        with torch.no_grad():
            return call().transpose(1, 2)

    def backward(call):
        out = call()
        return torch.autograd.grad(out, qkv, out)

    return {
        who: (functools.partial(forward, call), functools.partial(backward, call), wait)
        for who, call in attend.items()
    }


def _is_before(b, h, query, key):
    return query >= key


def _score_mod(name, table_HT):
    """Returns the scheme's bias as FlexAttention takes it."""
    if name == "alibi":
        slope_H = table_HT[:, 1] - table_HT[:, 0]
        return lambda score, b, h, query, key: score + slope_H[h] * (query - key)
    return lambda score, b, h, query, key: score + table_HT[h, (query - key).clamp(min=0)]
