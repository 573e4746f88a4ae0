"""Selects a layer of a model: the part of the config that applies to it, and its window."""

from typing import Any, NamedTuple

from posenc_jax.attention import Chunks
from posenc_jax.checks import check_choice
from posenc_jax.hf.common import LAYER_SIZES, by_kind, count_of_layers, section_of
from posenc_jax.hf.families import FAMILIES, family_of
from posenc_jax.hf.odd import plain
from posenc_jax.hf.sections import Section
from posenc_jax.hf.values import CHUNKED, FULL, LINEAR, SLIDING, Config, flag, whole, words
from posenc_jax.model.layers import Window

# Kinds of layers in which the text does not attend to itself.
WITHOUT_ATTENTION = {LINEAR} | words("conv cross_attention mamba mamba2 recurrent moe mlp")
_SLIDING = {SLIDING, "hybrid_sliding"}
# Sparse attention ("indexed") may choose among all keys.
_FULL = {FULL, "attention", "hybrid", "indexed_attention"}


class _At(NamedTuple):
    """Says which layer is meant; None is what the config does not distinguish."""

    number: int | None
    kind: str | None

    def one_of(self, *kinds: str) -> str:
        """Returns the kind of the layer, which must be one of ``kinds``."""
        if self.kind not in kinds:
            asked = "" if self.number is None else f"layer={self.number}: "
            raise ValueError(
                f"{asked}layer_type={self.kind!r} must be one of {', '.join(map(repr, kinds))}: "
                "they differ in this config"
            )
        return self.kind


def select(config: Config, layer_type: str | None, layer: int | None) -> Section | None:
    """Returns the section of the layers of this kind or number, None if they do not rotate.

    Where both are None, layers must be alike.
    """
    sections = [_section_at(config, at) for at in asked(config, layer_type, layer)]
    if any(other != sections[0] for other in sections):
        kinds = ", ".join(sorted({*config.get("layer_types", ())}))
        raise ValueError(
            "layers of this config differ: pass layer=, the number of the layer that is meant"
            + f", or layer_type=, one of {kinds}" * bool(kinds)
        )
    return sections[0]


def window_of(config: Config, number: int) -> Window:
    """Returns which keys a query sees in a layer, as an entry of ``Layers``."""
    family, kind = family_of(config), dict(enumerate(config.get("layer_types", ()))).get(number)
    if kind == CHUNKED:
        return Chunks(whole(config, "attention_chunk_size", default=8192))
    if kind is not None:  # Which keys a layer of another kind sees is not known.
        check_choice(sorted(_SLIDING | _FULL | {CHUNKED}), **{f"layer_types[{number}]": kind})
    is_switched = "use_sliding_window" in family.reads
    is_off = is_switched and not flag(config, "use_sliding_window", default=False)
    if is_off or "sliding_window" in family.unread:
        return None
    window = config.get("sliding_window")
    if kind in _SLIDING or (family.windowed and window is not None):
        own = config["per_layer_config"].get(number, {}).get("sliding_window")
        return family.reach(config, whole({"sliding_window": own or window}, "sliding_window"))
    is_known = config.get("model_type") in FAMILIES and family.scheme == "rope"
    if kind is None and window is not None and (not is_known or is_switched or family.kinds_needed):
        raise ValueError(
            f"sliding_window={window!r}: which layers have it is not known without layer_types, "
            "the kind of each layer"
        )
    return None


def asked(config: Config, layer_type: str | None, layer: int | None) -> list[_At]:
    """Returns the layers of this number or kind; one without a number if the config lists none.

    Raises:
      ValueError: there is no such layer, or it has no attention.
    """
    kinds, count = config.get("layer_types"), count_of_layers(config)
    if layer is not None:
        if type(layer) is not int or layer < 0 or layer >= (count or layer + 1):
            raise ValueError(f"layer={layer!r} must be a whole number of 0 or more below {count}")
        kind = kinds[layer] if kinds else layer_type
        if layer_type not in (None, kind):
            raise ValueError(f"layer_type={layer_type!r} contradicts layer={layer}, a {kind!r}")
        if kind in WITHOUT_ATTENTION:
            raise ValueError(f"layer={layer} is of kind {kind!r}, which has no attention")
        return [_At(layer, kind)]
    known = {*(kinds or ()), *by_kind(config)}
    if layer_type is not None and layer_type not in known:
        raise ValueError(
            f"layer_type={layer_type!r} must be left out, or one of {', '.join(sorted(known))}"
        )
    layers = [_At(n, kinds[n] if kinds else layer_type) for n in range(count)]
    attending = [at for at in layers if at.kind not in WITHOUT_ATTENTION]
    return [at for at in attending if layer_type in (None, at.kind)] or [_At(None, layer_type)]


def _section_at(config, at) -> Section | None:
    """Returns the keys of a config about the rotation of one layer, None if it does not rotate."""
    own = config["per_layer_config"].get(at.number, {})
    (where, keys), sections = section_of(config), by_kind(config)
    if sections:
        first, *others = sections
        alike = at.kind is None and all(sections[first] == sections[kind] for kind in others)
        kind = first if alike else at.one_of(*sections)
        keys, where = sections[kind], f"{where}[{kind!r}]"
    if keys is None or own.get("rope_type", "") is None:
        return None
    keys = plain(keys) if "rope_type" in own else keys
    base, shared = own.get("rope_theta"), keys.get("rope_theta", config.get("rope_theta"))
    if base and "layer_rope_theta" not in family_of(config).reads and shared not in (None, base):
        raise ValueError(
            f"layer_rope_theta={base!r} contradicts rope_theta={shared!r}: the model's code only "
            "checks whether layer_rope_theta is 0"
        )
    keys = {**keys, "rope_theta": base} if base else keys
    beside = {"rope_theta"} if "rope_theta" in keys and (sections or base) else set()
    # The base beside a section of this kind is that of other layers.
    common = {key: config[key] for key in config.keys() - beside}
    return Section(keys, where, common | _sizes_at(config, at))


def _sizes_at(config, at) -> dict[str, Any]:
    """Returns the sizes in which a layer differs from the common ones."""
    by_number = config["per_layer_config"]
    sizes = LAYER_SIZES & {key for own in by_number.values() for key in own}
    if sizes and at.number is None:
        raise ValueError("per_layer_config differs between layers: pass layer=, the one you mean")
    if sizes:
        own = by_number.get(at.number, {})
        return {key: own[key] for key in sizes if own.get(key) is not None}
    for kind, key in ((FULL, "global_head_dim"), (SLIDING, "swa_head_dim")):
        width = config.get(key) or config.get("head_dim")
        if width != config.get("head_dim") and at.one_of(FULL, SLIDING) == kind:
            return {"head_dim": width}
    return {}
