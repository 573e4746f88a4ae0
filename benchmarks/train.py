"""Times a training step against PyTorch's, of the same decoder, interleaved in one process.

    python -m benchmarks.train --batch=8 --length=256

Each round times one step of ours, then one of PyTorch's (``torch.compile``, scaled-dot-product
attention, fused AdamW); the figure is the median over rounds of PyTorch's time over ours. Above 1
ours is faster. With ``--precision=bfloat16`` the products of both have factors in bfloat16, ours by
``train.products`` and PyTorch's by ``torch.autocast``. PyTorch has no attention with a bias by
distance on a CPU, so it is given the bias of all pairs as a mask.
"""

import functools
import sys

from experiments.training.host import keep_freed_memory

if __name__ == "__main__":  # before JAX starts threads
    keep_freed_memory()

import torch
from torch.nn import functional

from benchmarks.common import (
    VOCAB,
    about,
    interleaved,
    random_tokens,
    ratios,
    shape_parser,
    table,
    training_step,
)
from experiments.command import exit_status
from posenc_jax.encodings.bias.t5 import t5_bucket_starts
from posenc_jax.model.transformer import usual_mlp_dim


class TorchBlock(torch.nn.Module):
    """Computes a decoder block, as ``posenc_jax.model.block.Block`` does."""

    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.heads = heads
        linear = functools.partial(torch.nn.Linear, bias=False)
        self.norm1, self.norm2 = torch.nn.RMSNorm(dim, 1e-6), torch.nn.RMSNorm(dim, 1e-6)
        self.q, self.k, self.v, self.out = (linear(dim, dim) for _ in range(4))
        self.gate, self.up = linear(dim, hidden), linear(dim, hidden)
        self.down = linear(hidden, dim)

    def forward(self, x, cos, sin, bias):
        B, T, D = x.shape
        y = self.norm1(x)
        q, k, v = (
            f(y).view(B, T, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        if cos is not None:
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, D))
        y = self.norm2(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class T5Bias(torch.nn.Module):
    """Computes T5's bias of all pairs."""

    def __init__(self, heads, distance):
        super().__init__()
        starts = torch.from_numpy(t5_bucket_starts(32, 128))
        self.bucket = torch.searchsorted(starts, distance.long().clamp(min=0), right=True) - 1
        self.table = torch.nn.Parameter(torch.randn(32, heads) / 16)

    def forward(self):
        return self.table[self.bucket].permute(2, 0, 1)


class KerpleBias(torch.nn.Module):
    """Computes KERPLE's logarithmic bias of all pairs."""

    def __init__(self, heads, distance):
        super().__init__()
        self.distance = distance.clamp(min=0)
        self.p, self.a = (torch.nn.Parameter(torch.rand(heads, 1, 1)) for _ in range(2))

    def forward(self):
        p, a = (0.01 + functional.softplus(x) for x in (self.p, self.a))
        return -p * torch.log1p(a * self.distance)


class ALiBiBias(torch.nn.Module):
    """Computes ALiBi's bias of all pairs."""

    def __init__(self, heads, distance):
        super().__init__()
        slopes = 2.0 ** (-8 * torch.arange(1, heads + 1) / heads)
        self.bias = -slopes[:, None, None] * distance

    def forward(self):
        return self.bias


BIASES = {"alibi": ALiBiBias, "t5": T5Bias, "kerple_log": KerpleBias}


class TorchDecoder(torch.nn.Module):
    """Computes the loss of a decoder with RoPE, with the bias that ``bias`` makes, or neither."""

    def __init__(self, dim, layers, heads, hidden, bias, ahead):
        super().__init__()
        self.bias, self.ahead = bias, ahead
        self.embedding = torch.nn.Embedding(VOCAB, dim)
        self.blocks = torch.nn.ModuleList(TorchBlock(dim, heads, hidden) for _ in range(layers))
        self.norm = torch.nn.RMSNorm(dim, 1e-6)
        for p in self.parameters():
            if p.ndim == 2:
                torch.nn.init.normal_(p, std=0.02)

    def forward(self, tokens, cos, sin):
        x = self.embedding(tokens[:, :-1])
        bias = None
        if self.bias is not None:
            bias = self.bias().masked_fill(self.ahead, -torch.inf)[None]
        for block in self.blocks:
            x = block(x, cos, sin, bias)
        logits = functional.linear(self.norm(x), self.embedding.weight)
        return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def rotate(x, cos, sin):
    """Rotates queries or keys by RoPE in the layout of halves."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def torch_step(args):
    """Returns a function that runs one step and returns its loss, and the model's size."""
    position = torch.arange(args.length).float()
    distance = position[:, None] - position
    bias = ahead = None
    if args.encoding in BIASES:
        bias, ahead = BIASES[args.encoding](args.heads, distance), distance < 0
    model = TorchDecoder(args.dim, args.layers, args.heads, usual_mlp_dim(args.dim), bias, ahead)
    compiled = torch.compile(model)
    decay = [p for p in model.blocks.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if not any(p is q for q in decay)]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95), fused=True)
    cos = sin = None
    if args.encoding == "rope":
        half = args.dim // args.heads // 2
        angles = position[:, None] * 10000.0 ** (-torch.arange(half) / half)
        cos, sin = angles.cos(), angles.sin()
    tokens = torch.from_numpy(random_tokens(args)).long()

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bfloat16"):
            loss = compiled(tokens, cos, sin)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step, sum(p.numel() for p in model.parameters())


@exit_status
def main() -> None:
    parser = shape_parser(__doc__, batch=8, length=256)
    parser.add_argument("--encoding", default="rope", choices=("nope", "rope", *BIASES))
    args = parser.parse_args()
    step, size = training_step(args, args.encoding)
    their_step, their_size = torch_step(args)
    assert size == their_size, f"not the same model: {size} and {their_size} parameters"
    times = interleaved({"ours": step, "PyTorch": their_step}, args.rounds)
    ours, theirs = 1e3 * times.median()
    print(f"{about(args)}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    ratio = ratios(times, "ours")["PyTorch"]
    row = f"{size / 1e6:.2f}M", f"{ours:.0f}", f"{theirs:.0f}", f"{ratio:.2f}"
    print(table(("parameters", "ours, ms", "PyTorch, ms", "ratio"), [row]))


if __name__ == "__main__":
    sys.exit(main())
