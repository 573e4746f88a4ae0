"""What a key of a config holds, checked, with the key at fault named."""

import math

# What one size is called in different models.
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
WIDTH = ("hidden_size", "n_embd", "d_model")
LENGTH = ("max_position_embeddings", "n_positions", "max_seq_len")


def head_dim_of(config):
    for keys in (("qk_rope_head_dim",), ("head_dim", "kv_channels")):
        if config.keys() & set(keys):
            return whole(config, *keys)
    width, heads = whole(config, *WIDTH, instead="head_dim"), whole(config, *HEADS)
    if width % heads:
        raise ValueError(f"head_dim is missing, and {width} channels are not {heads} equal heads")
    return width // heads


def agreed(values):
    """The one value that every key gives."""
    if len(set(values.values())) > 1:
        listed = " and ".join(f"{key} ({value})" for key, value in values.items())
        raise ValueError(f"contradiction between {listed}: drop one")
    return next(iter(values.values()))


def whole(config, *spellings, default=None, instead=None):
    """The positive whole number that config has under any of the spellings."""
    found = {key: config[key] for key in spellings if key in config}
    if not found and default is None:
        missing = spellings[0] if instead is None else f"{instead} (or {spellings[0]})"
        raise ValueError(f"config lacks {missing}: add it, or pass it as a keyword")
    for key, value in found.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{key}={value!r} must be a positive whole number")
    return agreed(found) if found else default


def number(where, section, key, minimum, default=None):
    value = section.get(key, default)
    if not is_number(value) or value < minimum:
        raise ValueError(f"{key}={value!r} in {where} must be a number of {minimum} or more")
    return float(value)


def flag(section, key, where="config", *, default):
    value = section.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"{key}={value!r} in {where} must be true or false")
    return value


def is_number(value):
    return isinstance(value, (int, float)) and type(value) is not bool and math.isfinite(value)
