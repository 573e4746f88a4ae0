"""Writes out the equations of rotary encodings over several position axes."""

import numpy as np

from schemes.equations import NoPE, Scheme, channels_of, content, distances, pairs_of
from schemes.rotary import OTHER, TRAIN_LENGTH, YARN, Rotary


class MultiAxis(Rotary):
    """Counts each pair's distance along its axis; a text token is at one place on all."""

    def axis_of(self, pair, pairs, given):
        """Returns the axis that rotates a pair, or None."""
        raise NotImplementedError

    def rotations(self, positions, rate, given):
        positions = np.broadcast_to(positions, (3, positions.shape[-1]))
        rotations = []
        for pair, theta in enumerate(rate):
            axis = self.axis_of(pair, len(rate), given)
            distance = 0 * distances(positions[0]) if axis is None else distances(positions[axis])
            rotations.append(np.exp(1j * distance * theta))
        return np.stack(rotations, axis=-1)


class Chunked(MultiAxis):
    def sections(self, pairs, given):
        space = pairs * 3 // 8
        return given.get("sections") or (pairs - 2 * space, space, space)

    def axis_of(self, pair, pairs, given):
        time, row, _ = self.sections(pairs, given)
        return 0 if pair < time else 1 if pair < time + row else 2


class Interleaved(MultiAxis):
    def axis_of(self, pair, pairs, given):
        order = given.get("order", (0, 1, 2))
        small = pairs * 5 // 16
        sections = given.get("sections") or tuple(
            pairs - 2 * small if axis == order[0] else small for axis in range(3)
        )
        repeat, number = divmod(pair, 3)
        return order[number] if repeat < sections[order[number]] else order[0]


class Heads(MultiAxis):
    def rotations(self, positions, rate, given):
        time, row, column = given["axis_heads"] or (1, 1, 1)
        axes, rotations = [0] * time + [1] * row + [2] * column, []
        for axis in axes + [None] * (4 - len(axes)):
            self.axis = axis
            rotations.append(super().rotations(positions, rate, given))
        return np.stack(rotations)

    def axis_of(self, pair, pairs, given):
        return self.axis


class VideoRoPE(Chunked):
    def axis_of(self, pair, pairs, given):
        time = self.sections(pairs, given)[0]
        return 0 if pair >= pairs - time else 1 + pair % 2


class VideoRoPEPP(VideoRoPE):
    def frequencies(self, d, base, given, longest):
        rate, temperature = super().frequencies(d, base, given, longest)
        scale = (TRAIN_LENGTH * given.get("factor", 4.0) - 1) / (TRAIN_LENGTH - 1)
        for pair in range(d // 2):
            if self.axis_of(pair, d // 2, given) == 0:
                rate[pair] = (base * scale ** (d / (d - 2))) ** (-2 * pair / d)
        return rate, temperature


class HopeHybrid(VideoRoPE):
    def axis_of(self, pair, pairs, given):
        return super().axis_of(pair, pairs, given) or None


class TimeRoPE(Chunked):
    layout = "interleaved"

    def frequencies(self, d, base, given, longest):
        spectra = [
            super(TimeRoPE, self).frequencies(2 * pairs, base, given, longest)
            for pairs in self.sections(d // 2, given)
        ]
        return np.concatenate([rate for rate, _ in spectra]), spectra[0][1]


class PRoPE(NoPE):
    """Reads text, whose camera is the world's own, so that half of the channels stay as they are.

    ``test_prope`` has the equation with cameras.
    """

    def rotated(self, x, positions, given, sign):
        """Rotates the channels ``[time | camera | column | row]`` of ``x [T, H, C]``."""
        time = given.get("time_channels", 0)
        quarter = (x.shape[-1] - time) // 4
        times, camera, column, row = np.split(x, time + quarter * np.array([0, 2, 3]), axis=-1)
        base = given.get("base", 100.0)
        times = self.rotated_block(times, sign * positions, given.get("time_base", 1e4))
        column, row = (self.rotated_block(x, sign * positions, base) for x in (column, row))
        return np.concatenate([times, camera, column, row], axis=-1)

    def rotated_block(self, x, positions, base):
        pairs = x.shape[-1] // 2
        rotation = np.exp(1j * positions[:, None] * base ** -(np.arange(pairs) / max(pairs, 1)))
        return channels_of(pairs_of(x, "half") * rotation[:, None], "half")

    def logits(self, q, k, positions, given, weights):
        return content(*(self.rotated(x, positions, given, -1) for x in (q, k)))

    def values(self, v, attention, positions, given, weights):
        rotated = self.rotated(v, positions, given, -1)
        sums = super().values(rotated, attention, positions, given, weights)
        return self.rotated(sums, positions, given, 1)


STRETCHED = {"rotary_dim": 12, "frequencies": YARN}

SCHEMES = {
    "mrope": Scheme(Chunked(), [{}, OTHER, {"sections": (1, 2, 3), **STRETCHED}], num_axes=3),
    "i_mrope": Scheme(
        Interleaved(),
        [
            {},
            OTHER,
            {"order": (2, 0, 1), "sections": (2, 1, 3), **STRETCHED},
            {"order": (1, 2, 0)},
        ],
        num_axes=3,
    ),
    "mhrope": Scheme(
        Heads(),
        [
            {"axis_heads": (1, 1, 1)},
            {"axis_heads": None, **OTHER},
            {"axis_heads": (0, 2, 2), **STRETCHED},
        ],
        overrides={"axis_heads": (0, 1, 1)},  # Which two kv heads have too.
        num_axes=3,
    ),
    "videorope": Scheme(VideoRoPE(), [{}, OTHER, {"sections": (2, 2, 2), **STRETCHED}], num_axes=3),
    "videorope_pp": Scheme(
        VideoRoPEPP(),
        [
            {},
            {"base": 300.0, "rotary_dim": 12},
            {"sections": (4, 2, 2), "factor": 7.0, "layout": "interleaved"},
        ],
        num_axes=3,
    ),
    "hope_hybrid": Scheme(
        HopeHybrid(), [{}, OTHER, {"sections": (2, 2, 2), **STRETCHED}], num_axes=3
    ),
    "prope": Scheme(PRoPE(), [{}, {"base": 7.0}, {"time_channels": 8, "time_base": 50.0}]),
    "time_rope": Scheme(
        TimeRoPE(),
        [{}, OTHER | {"layout": "half"}, {"sections": (1, 2, 3), **STRETCHED}],
        num_axes=3,
    ),
}
