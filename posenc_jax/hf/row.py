"""Defines the columns of the table of models: in which ways their codes treat positions."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from posenc_jax.encoding import Encoding
from posenc_jax.hf import rules
from posenc_jax.hf.rules import At, Config, Kinds, Reach


def words(text: str) -> frozenset[str]:
    """Returns the words of a text."""
    return frozenset(text.split())


@dataclasses.dataclass(frozen=True)
class Row:
    """Says what the code of one model does; the defaults describe Llama."""

    # "rope", "alibi", "t5" (a bias by distance), "learned" (a table that is added to the
    # embeddings), or "nope" for attention that has no positions whatever else the config says.
    scheme: str = "rope"
    # Pair i is the channels i and i + rotary_dim / 2 ("half"), or 2 i and 2 i + 1 ("interleaved").
    layout: str = "half"
    base: float | None = None  # the base where the config has none; None if it must have one
    # The share of a head that rotates where the config does not say; None if the code rotates whole
    # heads whatever it says (the share of p-RoPE is read in every model).
    fraction: float | None = None
    # Whether the class scales its rates where the config has no rotary section.
    scaled: bool = False
    # "unread": the code reads only ``partial_rotary_factor``, with which this key must agree;
    # "read"; "needed" where only this key says how much of a head rotates.
    rotary_dim: str = "unread"
    # The width of a head where it is not the model's width over the number of heads, or a function
    # that reads it.
    head_dim: int | Callable[[Config], int] | None = None
    # The same for layers with full attention, where they are wider.
    full_head_dim: int | None = None
    # The width where the config has no sizes at all: a part of a model may be published without
    # them, with the sizes of its class.
    bare_head_dim: int | None = None
    latent: bool = False  # whether only a part of a head rotates, its ``qk_rope_head_dim`` channels
    # Whether frequencies and the scale of queries are parameters of the checkpoint.
    learned: bool = False
    backwards: bool = False  # whether every pair rotates the other way
    # Channel pairs of each position axis, where the config leaves them out.
    sections: tuple[int, ...] | None = None
    # How pairs are dealt out to position axes: "chunked", "interleaved" (whether
    # ``mrope_interleaved`` is set or not), "time_last" (row, column and time, as in VideoRoPE) or
    # "rows_and_columns". None: two channels of a pair rotate by different axes.
    axes: str | None = "chunked"
    rotates: Callable[[Config, At], bool] | None = None  # which layers have RoPE; None for all
    still: Callable[[Config], Encoding] = rules.nope  # the encoding of the others
    # Whether a flat section is for full layers alone, and other layers have RoPE, of the same base
    # if they are not ``local``.
    plain_sliding: bool = False
    # Whether ``layer_rope_theta`` is the base of a layer; in other models it only says which layers
    # rotate.
    base_by_layer: bool = False
    # Whether layers with a window have a base of their own, with ``defaults`` for both.
    local: bool = False
    # Whether published sections for each kind have an unread key next to them.
    dangling: bool = False
    kinds: tuple[str, ...] = ()  # the kinds of layers that differ where no section says so
    kind_rule: Kinds | None = None  # the kind of each layer where the config does not list them
    kinds_needed: bool = False  # whether layers differ and only the config says which
    per_layer: int = 1  # how often a layer occurs in ``layer_types``
    # The layers that have ``sliding_window`` where their kinds are not listed: "every", "late"
    # (from ``max_window_layers`` on), "still" (layers without rotation); None: it is not read.
    # "unused": it hides no text.
    window: str | None = None
    # Whether windows count only if ``use_sliding_window`` is true; listed ones always count where
    # ``window`` is "still".
    switched: bool = False
    sees: Reach = rules.back  # the keys that a query sees, from the config and its window
    # Layers in which each head has a learned sink: "every", or layers with "windows".
    sinks: str | None = None
    # ``position_embedding_type`` where the config lacks it; "unread" if the code does not ask for
    # it.
    position_type: str = "rope"
    table: str = ""  # how the name of the tensor ends that has the learned positions
    reserved: int = 0  # rows at the start of this table that no token reads
    counts_reserved: bool = True  # whether the length in the config includes these rows
    reads_alibi: bool = False  # whether the code reads ``alibi``
    # Whether the bias is added before the logits are divided by sqrt(head_dim).
    alibi_divided: bool = False
    own_tables: bool = False  # whether each layer has a bias table of its own
    dual_chunks: bool = False  # whether SGLang and vLLM read ``dual_chunk_attention_config``
    scaled_queries: bool = False  # whether ``llama_4_scaling_beta`` is read, and multiplies queries
    ntk_alpha: bool = False  # whether the type "dynamic" has a fixed alpha
    # Keys that stop the rotation, and that most models do not read.
    reads: frozenset[str] = frozenset()
    # What the class has where the config lacks a key.
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # Keys that have another name in most models.
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # Values that a key must have if it is there.
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unread: frozenset[str] = frozenset()  # keys about positions that change nothing
