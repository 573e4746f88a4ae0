"""Times the same attention in JAX's own functions and in PyTorch, if it is installed.

The other libraries are given the terms that our scheme adds to the logits; each record has the
distance of their output from ours. They rotate no queries or keys: compare our times under ``rope``
with theirs under ``nope``.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.attention import Shape, build, gradient, operands, run, timed
from posenc_jax.attention import logits
from posenc_jax.positions import text

# The schemes whose terms other libraries can take: by distance, by sums along a row, by pair.
BY_DISTANCE = ("alibi", "t5", "kerple_log")
BY_SUMS = ("fox",)
BY_PAIR = ("fire",)
_MOST_BIAS = 2**30  # numbers in a bias that is written out


def rivals(name: str, shape: Shape) -> Iterator[dict[str, Any]]:
    """Yields the times of other libraries under a scheme; nothing if they cannot express it."""
    if name != "nope" and name not in BY_DISTANCE + BY_SUMS + BY_PAIR:
        return
    encoding, arguments = build(name, shape), operands(shape)
    expected = np.asarray(jax.jit(run)(encoding, *arguments), np.float32)
    bias_BHTT = None
    pairs = shape.heads * shape.length**2 * (shape.batch if name in BY_SUMS else 1)
    is_written_out = name != "nope" and pairs <= _MOST_BIAS
    if is_written_out:
        bias_BHTT = _bias(encoding, shape, arguments, slice(0, shape.length))
    if name == "nope" or is_written_out:
        yield from _jax(name, shape, arguments, bias_BHTT, expected)
    last_BHT = None
    if name in BY_DISTANCE + BY_SUMS:
        last_BHT = _bias(encoding, shape, arguments, slice(shape.length - 1, None))[:, :, 0]
    yield from _torch(name, shape, arguments, bias_BHTT, last_BHT, expected)


def _bias(encoding, shape, arguments, queries) -> jax.Array:
    """Returns what the scheme adds to the logits of some queries, float32 ``[B or 1, H, T, S]``."""
    q, k, _, x_BTD = arguments
    first = queries.start
    rows = 1 if encoding.hooks().isdisjoint({"observe"}) else shape.batch

    def add(encoding, q, k, x_BTD):
        tokens = encoding.tokens(text(shape.length)).observed(encoding, x_BTD)
        part = tokens.part(first, shape.length - first)
        return logits(encoding, jnp.zeros_like(q[:, first:]), jnp.zeros_like(k), part, tokens)

    return jax.jit(add)(encoding, *(x[:rows] for x in (q, k, x_BTD)))


def _distance(actual, expected) -> float:
    return float(np.abs(np.asarray(actual, np.float32) - expected).max() / np.abs(expected).max())


def _jax(name, shape, arguments, bias_BHTT, expected):
    """Yields the figures of ``jax.nn.dot_product_attention`` with XLA's and cuDNN's kernels."""
    q, k, v, _ = arguments
    given = q, k, v, None if bias_BHTT is None else bias_BHTT.astype(q.dtype)
    for library in ("xla", "cudnn"):
        who, attend = f"jax.nn, {library}", jax.nn.dot_product_attention
        call = functools.partial(attend, is_causal=True, implementation=library)
        try:
            about = {"distance": _distance(jax.jit(call)(*given), expected)}
            for with_gradient in (False, True):
                function = jax.jit(gradient(call) if with_gradient else call)
                seconds = timed(functools.partial(function, *given))
                yield shape.record(name, who, seconds, with_gradient) | about
        except Exception as error:  # a limit of another library is not an error of ours
            yield _absent(name, who, error)


def _absent(name, who, error):
    reason = f"{type(error).__name__}: {str(error)[:160]}"
    return {"kind": "absent", "scheme": name, "who": who, "reason": reason}


def _torch(name, shape, arguments, bias_BHTT, last_BHT, expected):
    """Yields the figures of PyTorch: scaled dot-product attention, and compiled FlexAttention."""
    try:
        import torch
        from torch.nn.attention import flex_attention as flex
    except ImportError:
        yield {"kind": "absent", "scheme": name, "who": "PyTorch", "reason": "not installed"}
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def tensor(array, dtype=torch.bfloat16):
        return torch.tensor(np.asarray(array, np.float32)).to(device, dtype)

    q, k, v = (tensor(x).transpose(1, 2).contiguous() for x in arguments[:3])
    sdpa = torch.nn.functional.scaled_dot_product_attention
    if bias_BHTT is None:
        calls = {"PyTorch SDPA": lambda: sdpa(q, k, v, is_causal=True)} if name == "nope" else {}
    else:
        visible = np.tril(np.ones((shape.length, shape.length), bool))
        bias = tensor(np.where(visible, np.asarray(bias_BHTT), -np.inf))
        calls = {"PyTorch SDPA, bias written out": lambda: sdpa(q, k, v, attn_mask=bias)}
    score = _score_mod(name, last_BHT, tensor, torch)
    if score is not None or name == "nope":
        length = shape.length
        mask = flex.create_block_mask(_causal, None, None, length, length, device=device)
        compiled = torch.compile(flex.flex_attention)
        calls["FlexAttention"] = lambda: compiled(q, k, v, score_mod=score, block_mask=mask)
    wait = (lambda _: torch.cuda.synchronize()) if device == "cuda" else (lambda _: None)
    for who, call in calls.items():
        try:
            for x in (q, k, v):
                x.requires_grad_(False)
            with torch.no_grad():
                out = call().transpose(1, 2).float().cpu().numpy()
                about = {"distance": _distance(out, expected)}
                yield shape.record(name, who, timed(call, wait), with_gradient=False) | about
            for x in (q, k, v):
                x.requires_grad_(True)

            def backward(call=call):
                out = call()
                torch.autograd.grad(out, (q, k, v), out)

            yield shape.record(name, who, timed(backward, wait), with_gradient=True) | about
        except Exception as error:
            yield _absent(name, who, error)


def _causal(b, h, query, key):
    return query >= key


def _score_mod(name, last_BHT, tensor, torch):
    """Returns the scheme's terms as a ``score_mod`` of FlexAttention, or None if it has none."""
    if last_BHT is None:
        return None
    if name in BY_SUMS:
        sums_BHT = tensor(-np.asarray(last_BHT), torch.float32)
        return lambda score, b, h, query, key: score + sums_BHT[b, h, query] - sums_BHT[b, h, key]
    # The last query sees each distance once, the largest first.
    table_HT = tensor(np.asarray(last_BHT)[0, :, ::-1].copy(), torch.float32)
    if name == "alibi":
        slope_H = table_HT[:, 1] - table_HT[:, 0]
        return lambda score, b, h, query, key: score + slope_H[h] * (query - key)
    return lambda score, b, h, query, key: score + table_HT[h, (query - key).clamp(min=0)]
