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
    """Says what the code of one model does; the defaults describe Llama.

    Attributes:
      scheme: "rope", "alibi", "t5" (a bias by distance), "learned" (a table that is added to the
        embeddings), or "nope" for attention that has no positions whatever else the config says.
      layout: pair i is the channels i and i + rotary_dim / 2 ("half"), or 2 i and 2 i + 1
        ("interleaved").
      base: the base where the config has none; None if it must have one.
      fraction: the share of a head that rotates where the config does not say; None if the code
        rotates whole heads whatever it says (the share of p-RoPE is read in every model).
      scaled: whether the class scales its rates where the config has no rotary section.
      rotary_dim: "read"; "unread" where the code reads only ``partial_rotary_factor``; "needed"
        where only this key says how much of a head rotates.
      head_dim: the width of a head where it is not the model's width over the number of heads, or
        a function that reads it.
      full_head_dim: the same for layers with full attention, where they are wider.
      bare_head_dim: the width where the config has no sizes at all: a part of a model may be
        published without them, with the sizes of its class.
      latent: whether only a part of a head rotates, its ``qk_rope_head_dim`` channels.
      learned: whether frequencies and the scale of queries are parameters of the checkpoint.
      backwards: whether every pair rotates the other way.
      sections: channel pairs of each position axis, where the config leaves them out.
      axes: how pairs are dealt out to position axes: "chunked", "interleaved" (whether
        ``mrope_interleaved`` is set or not), "time_last" (row, column and time, as in VideoRoPE) or
        "rows_and_columns". None: two channels of a pair rotate by different axes.
      rotates: which layers have RoPE; None for all.
      still: the encoding of the others.
      plain_sliding: whether a flat section is for full layers alone, and other layers have RoPE,
        of the same base if they are not ``local``.
      base_by_layer: whether ``layer_rope_theta`` is the base of a layer; in other models it only
        says which layers rotate.
      local: whether layers with a window have a base of their own, with ``defaults`` for both.
      dangling: whether published sections for each kind have an unread key next to them.
      kinds: the kinds of layers that differ where no section says so.
      kind_rule: the kind of each layer where the config does not list them.
      kinds_needed: whether layers differ and only the config says which.
      per_layer: how often a layer occurs in ``layer_types``.
      window: the layers that have ``sliding_window`` where their kinds are not listed: "every",
        "late" (from ``max_window_layers`` on), "still" (layers without rotation); None: it is not
        read. "unused": it hides no text.
      switched: whether windows count only if ``use_sliding_window`` is true; listed ones always
        count where ``window`` is "still".
      sees: the keys that a query sees, from the config and its window.
      sinks: layers in which each head has a learned sink: "every", or layers with "windows".
      position_type: ``position_embedding_type`` where the config lacks it; "unread" if the code
        does not ask for it.
      table: how the name of the tensor ends that has the learned positions.
      reserved: rows at the start of this table that no token reads.
      counts_reserved: whether the length in the config includes these rows.
      reads_alibi: whether the code reads ``alibi``.
      alibi_divided: whether the bias is added before the logits are divided by sqrt(head_dim).
      own_tables: whether each layer has a bias table of its own.
      dual_chunks: whether SGLang and vLLM read ``dual_chunk_attention_config``.
      scaled_queries: whether ``llama_4_scaling_beta`` is read, and multiplies queries.
      ntk_alpha: whether the type "dynamic" has a fixed alpha.
      reads: keys that stop the rotation, and that most models do not read.
      defaults: what the class has where the config lacks a key.
      renamed: keys that have another name in most models.
      fixed: values that a key must have if it is there.
      unread: keys about positions that change nothing.
    """

    scheme: str = "rope"
    layout: str = "half"
    base: float | None = None
    fraction: float | None = None
    scaled: bool = False
    rotary_dim: str = "read"
    head_dim: int | Callable[[Config], int] | None = None
    full_head_dim: int | None = None
    bare_head_dim: int | None = None
    latent: bool = False
    learned: bool = False
    backwards: bool = False
    sections: tuple[int, ...] | None = None
    axes: str | None = "chunked"
    rotates: Callable[[Config, At], bool] | None = None
    still: Callable[[Config], Encoding] = rules.nope
    plain_sliding: bool = False
    base_by_layer: bool = False
    local: bool = False
    dangling: bool = False
    kinds: tuple[str, ...] = ()
    kind_rule: Kinds | None = None
    kinds_needed: bool = False
    per_layer: int = 1
    window: str | None = None
    switched: bool = False
    sees: Reach = rules.back
    sinks: str | None = None
    position_type: str = "rope"
    table: str = ""
    reserved: int = 0
    counts_reserved: bool = True
    reads_alibi: bool = False
    alibi_divided: bool = False
    own_tables: bool = False
    dual_chunks: bool = False
    scaled_queries: bool = False
    ntk_alpha: bool = False
    reads: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unread: frozenset[str] = frozenset()
