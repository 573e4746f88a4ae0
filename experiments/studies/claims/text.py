"""Holds the claims about the loss on text of schemes that are not rotary alone."""

import contextlib
import statistics

from scipy import stats

from experiments.results.ledger import Answers, Claim, Effect, MissingRunError, Seeds
from experiments.studies.claims.effects import (
    EQUAL,
    PROBED,
    RUNG,
    change,
    difference,
    differs,
    less,
    rung_change,
    rung_growth,
    rung_less,
)

_OTHER_BIASES = ("alibi", "kerple_log", "kerple_power")
# A loss counts as flat in ``_flat`` below this share of it.
_FLAT = 0.05
# Over fewer schemes than these the 95 % interval of a rank correlation of 0 is wider than 0.5 to
# either side, 1.96 / sqrt(n - 1).
_ENOUGH = 17


def _grows_less(one: str, other: str, multiple: int, study: str = "language", **range_) -> Effect:
    """Says that the loss of ``one`` grows less from the trained length than that of ``other``.

    What one scheme is ahead at the trained length says nothing about longer texts.
    """
    bits = Answers.rung_bits if study == RUNG else Answers.bits

    def growth(answers: Answers, scheme: str) -> Seeds:
        return bits(answers, study, scheme, multiple) - bits(answers, study, scheme, 1)

    says = f"growth of bits per byte from 1x to {multiple}x, {one} minus {other}"
    says += f", in {study}" * (study == RUNG)
    return difference(says, growth, (one,), (other,), **range_)


def _beats_window(scheme: str, of: str) -> Effect:
    """Says that a scheme that reads 16x has a lower loss than another that reads windows of 1x."""
    return difference(
        f"bits per byte after the first 1x tokens, {scheme} with texts of 16x minus {of} with the "
        f"most recent 1x tokens, in {RUNG}",
        Answers.rung_bits,
        (RUNG, scheme, 16, "beyond"),
        (RUNG, of, 16, "cut"),
    )


def _alibi_at_stride_1(answers: Answers, multiple: int) -> Seeds:
    """Returns bits per byte of ALiBi where every token has the same context."""
    where = dict(scheme="alibi", split="test", protocol="sliding", stride=1, multiple=multiple)
    return answers.read("far", "bits_per_byte", **where)


def _flat(answers: Answers) -> list[tuple[Seeds, Seeds]]:
    """Returns the loss at 16x and the share of recall at 4x of each scheme with a flat loss.

    A scheme is flat here if its loss at 16x is above that of the most recent tokens by less than
    ``_FLAT`` of it, on average over seeds. Schemes whose numbers are all the same count once.
    """
    pairs: dict[tuple, tuple[Seeds, Seeds]] = {}
    records = answers.studies["tasks"].records if "tasks" in answers.studies else []
    for scheme in {r["scheme"]: None for r in records}:
        with contextlib.suppress(MissingRunError):
            loss = answers.bits("language", scheme, 16)
            growth = loss / answers.recent_bits("language", scheme) - 1.0
            share = answers.hits(scheme, "recall", 4)
            if statistics.fmean(growth.values()) < _FLAT:
                pairs[(*loss.items(), *share.items())] = loss, share
    if len(pairs) < 3:
        raise MissingRunError("no data yet of recall under three schemes with a flat loss")
    return list(pairs.values())


def _flat_schemes(answers: Answers) -> Seeds:
    """Returns how many schemes have a flat loss, the same number for each seed."""
    pairs = _flat(answers)
    return Seeds(dict.fromkeys(pairs[0][0], float(len(pairs))))


def _loss_ranks_recall(answers: Answers) -> Seeds:
    """Returns the rank correlation of loss at 16x and recall at 4x, over schemes of ``_flat``."""
    pairs = _flat(answers)
    seeds = sorted(set.intersection(*(set(numbers) for pair in pairs for numbers in pair)))
    return Seeds(
        {
            seed: stats.spearmanr([(loss[seed], share[seed]) for loss, share in pairs])[0]
            for seed in seeds
        }
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "alibi_flat",
        "ALiBi's loss does not grow with the length, and at stride 1, where every token has the "
        "same context, it stays the same; here to 128 times the trained length.",
        "2108.12409",
        "WikiText-103 and 1.3B parameters, trained at 512 and 1024 tokens, tested at 3072 and 2024",
        ("alibi",),
        (
            change("alibi", 128, study="far", low=-0.05, high=0.02),
            Effect(
                "loss of alibi at 128x over that at 1x, minus 1, at stride 1",
                lambda a: _alibi_at_stride_1(a, 128) / _alibi_at_stride_1(a, 1) - 1.0,
                low=-0.05,
                high=0.02,
            ),
        ),
    ),
    Claim(
        "alibi_half_length",
        "ALiBi trained at L tokens is at 2L as good as sinusoidal positions trained at 2L.",
        "2108.12409",
        "WikiText-103, trained at 512 tokens: perplexity 18.40 at 3072, where sinusoidal positions "
        "trained there have 18.67",
        ("alibi", "sinusoidal"),
        (
            difference(
                "bits per byte at 2L, alibi minus sinusoidal trained there",
                Answers.bits,
                ("language", "alibi", 2),
                ("double", "sinusoidal", 1),
                high=EQUAL,
            ),
        ),
        # If sinusoidal positions are far behind at every length, the comparison says nothing.
        needs=(less("alibi", "sinusoidal", 1, low=-0.1, high=0.1),),
        scale_needed="training in which sinusoidal positions come as near to ALiBi at the trained "
        "length as in the paper, on WikiText-103 at 512 tokens",
    ),
    Claim(
        "t5_drifts",
        "T5's bias is the best of the biases by distance to twice the trained length, and the "
        "worst of them at 16 times.",
        "2205.09921, table 3",
        "162M parameters, trained at 512 tokens, tested to 16384",
        ("t5", *_OTHER_BIASES),
        (
            *(less("t5", other, multiple) for multiple in (1, 2) for other in _OTHER_BIASES),
            *(less(other, "t5", 16) for other in _OTHER_BIASES),
        ),
    ),
    Claim(
        "kerple_beats_alibi",
        "KERPLE's logarithmic kernel has no higher loss than ALiBi at the trained length, and "
        "relative to that a lower one at 4, 8 and 16 times.",
        "2205.09921, table 3",
        "162M parameters, trained at 512 tokens, tested to 16384: perplexity 23.9 and 23.9 at 512, "
        "21.2 and 22.2 at 4096",
        ("kerple_log", "alibi"),
        (
            rung_less("kerple_log", "alibi", 1, high=EQUAL),
            *(_grows_less("kerple_log", "alibi", multiple, RUNG) for multiple in (4, 8, 16)),
        ),
    ),
    Claim(
        "power_lies_between",
        "The loss under KERPLE's power kernel grows more than under its logarithmic one and less "
        "than under ALiBi, from the trained length to 8 and 16 times that.",
        "2205.09921, table 3",
        "162M parameters, trained at 512 tokens, tested to 16384: perplexity 21.2, 21.5 and 22.2 "
        "at 4096",
        ("kerple_log", "kerple_power", "alibi"),
        (
            *(_grows_less("kerple_log", "kerple_power", multiple) for multiple in (8, 16)),
            *(_grows_less("kerple_power", "alibi", multiple) for multiple in (8, 16)),
        ),
    ),
    Claim(
        "sandwich_is_alibi",
        "Sandwich, which has no parameters, extrapolates as ALiBi does: the loss grows as much.",
        "2212.10356",
        "162M parameters, trained at 512 tokens, tested to 8192",
        ("sandwich", "alibi"),
        (_grows_less("sandwich", "alibi", 16, low=-0.05, high=0.05),),
    ),
    Claim(
        "fire_beats_alibi",
        "FIRE has a lower loss than ALiBi and KERPLE at 4 times the trained length.",
        "2310.04418",
        "models trained at 2048 tokens, tested at 8192, as third parties quote it",
        ("fire", "alibi", "kerple_log"),
        (rung_less("fire", "alibi", 4), rung_less("fire", "kerple_log", 4)),
    ),
    Claim(
        "transformer_xl_relative",
        "Transformer-XL's relative encoding has a lower loss than absolute positions, and holds "
        "beyond the trained length.",
        "1901.02860",
        "WikiText-103, perplexity 18.3 with 257M parameters and 24.0 with 151M",
        ("transformer_xl", "sinusoidal"),
        (
            rung_less("transformer_xl", "sinusoidal", 1),
            rung_growth("transformer_xl", 4, high=EQUAL),
        ),
    ),
    Claim(
        "seqpe_losses",
        "Both regularising losses of SeqPE help it beyond the trained length: the one that keeps "
        "distances, and the one that carries them over to positions not trained on.",
        "2506.13277",
        "a decoder like GPT-2 on WikiText-103, by the authors' code; its size was not read",
        ("seqpe",),
        (
            less("seqpe", "seqpe_no_contrast", 4, than="variants"),
            less("seqpe", "seqpe_no_transfer", 4, than="variants"),
        ),
    ),
    Claim(
        "path_degrades",
        "PaTH's loss grows in the end: products of reflections make far tokens matter less, but "
        "there are ever more of them.",
        "2606.24975",
        "a lower bound, and language models at extreme lengths",
        ("path",),
        (change("path", 16, low=EQUAL),),
    ),
    Claim(
        "fox_extrapolates",
        "A forget gate without positions has a lower loss than RoPE at 4 times the trained length, "
        "and holds there.",
        "2503.02130",
        "760M parameters, trained at 16,384 tokens of LongCrawl64, by the authors' code",
        ("fox", "rope"),
        (rung_less("fox", "rope", 4), rung_growth("fox", 4, high=EQUAL)),
    ),
    Claim(
        "dape_order",
        "DAPE improves the bias that it adapts: over KERPLE's it has a lower loss than KERPLE at "
        "the trained length and far beyond it, where KERPLE's grows and DAPE's does not.",
        "2405.14722",
        "125M parameters, trained at 512 tokens, perplexity of the last 256 tokens at 8192: 3.70 "
        "against 9.08, as third parties quote it",
        ("dape", "kerple_log"),
        (
            *(less("dape", "kerple_log", multiple) for multiple in (1, 16)),
            change("kerple_log", 16, low=0.0),
            change("dape", 16, high=EQUAL),
        ),
    ),
    Claim(
        "windows_and_nope",
        "RoPE within a window, and layers without positions that see everything, hold to 32 times "
        "the trained length, and better than RoPE and YaRN without tuning.",
        "2501.18795 (RNoPE-SWA), 2504.08719 (SWAN)",
        "8B parameters, trained at 8192 tokens, as third parties quote it: they lose 22 % on RULER "
        "at 32 times the length, and scaled RoPE 41 %",
        ("rnope_swa", "rope", "yarn"),
        (
            change("rnope_swa", 32, study="far", high=EQUAL),
            *(less("rnope_swa", other, 32, "far", "far") for other in ("rope", "yarn")),
        ),
    ),
    Claim(
        "logit_scales",
        "Logits that grow with the logarithm of the length lower the loss of RoPE at 8 times the "
        "trained length.",
        "2501.19399 (SSMax); 2202.12172 (LogN)",
        "162M parameters, trained at 1024 tokens, as third parties quote it; LogN for encoders of "
        "formal languages",
        ("ssmax", "logn", "rope"),
        (less("ssmax", "rope", 8), less("logn", "rope", 8)),
    ),
    Claim(
        "sinusoidal_fails",
        "With sinusoidal positions the loss explodes beyond the trained length.",
        "2108.12409, figure 1; 2205.09921, table 3",
        "162M parameters, trained at 512 tokens: perplexity 33 there, 750 at 1024 and 30046 at "
        "16384",
        ("sinusoidal",),
        tuple(rung_change("sinusoidal", multiple, low=0.1) for multiple in (2, 16)),
    ),
    Claim(
        "deberta_both_terms",
        "Attention from positions to content lowers the loss of a model that has attention from "
        "content to positions, as Shaw et al. do; with both the loss is below that of absolute "
        "positions.",
        "2006.03654",
        "encoders: DeBERTa has 91.1 % on MNLI and RoBERTa, with absolute positions, 90.2 %, by its "
        "abstract; its table without one of the terms was not read",
        ("deberta", "shaw", "learned"),
        tuple(rung_less("deberta", other, 1, PROBED) for other in ("shaw_keys", "learned")),
        note="All models have about as many parameters; DeBERTa's feed-forward network is narrower "
        "for that. shaw_keys is Shaw's scheme without vectors for values, and with a vector for "
        "each distance.",
    ),
    Claim(
        "nope_smear",
        "Without positions, but with each key and value mixed with the one before, a model is as "
        "good as with RoPE at the trained length, and better at 4 times it.",
        "2512.17351",
        "1.3B parameters and 100B tokens, and synthetic tasks: Canon layers, which mix the last "
        "four tokens at four places of a block, lift NoPE to match RoPE, by its abstract; here two "
        "tokens are mixed in attention alone",
        ("nope", "kv_shift", "rope"),
        (
            rung_less("nope_smear", "rope", 1, PROBED, high=EQUAL),
            rung_less("nope_smear", "rope", 4, PROBED),
        ),
    ),
    Claim(
        "nope_in_global_layers",
        "RoPE within a window in every other layer, and no positions in the others, costs nothing "
        "at the trained length, and makes use of 16 times the context: the loss is lower than with "
        "the most recent tokens alone, and lower than RoPE's with these.",
        "2501.18795 (RNoPE-SWA), 2504.08719 (SWAN)",
        "8B parameters, trained at 8192 tokens, as third parties quote it: they lose 22 % on RULER "
        "at 32 times the length, and scaled RoPE 41 %",
        ("rnope_swa", "rope"),
        (
            rung_less("rnope_swa", "rope", 1, high=EQUAL),
            *(_beats_window("rnope_swa", other) for other in ("rnope_swa", "rope")),
        ),
    ),
    Claim(
        "flat_is_not_retrieval",
        "Among schemes whose loss stays flat to 16 times the trained length, those with a lower "
        "loss do not recall more at 4 times it: the rank correlation is weak.",
        "2410.23771, figure 1; 2405.14591",
        "language models of about 7B parameters: perplexity on long texts shows no correlation "
        "with LongBench; a base that is too small keeps perplexity low, and retrieval fails",
        (),
        (
            Effect(
                "rank correlation of the loss at 16x and of the share of answers of recall right "
                "at 4x, over schemes with a flat loss",
                _loss_ranks_recall,
                low=-0.5,
                high=0.5,
            ),
        ),
        needs=(
            Effect(
                "schemes with a flat loss, those whose numbers are all the same counted once",
                _flat_schemes,
                low=_ENOUGH - 0.5,
            ),
        ),
        scale_needed=f"{_ENOUGH} schemes with a flat loss or more: the interval of the correlation "
        "is over seeds alone, and another choice of fewer schemes could give one that differs by "
        "more than 0.5",
        note="Some of the schemes have not learned recall at the trained length either, which is "
        "part of the question here.",
    ),
    Claim(
        "seqpe_extrapolates",
        "SeqPE has a lower loss at 4 times the trained length than sinusoidal positions, RoPE and "
        "ALiBi, and added to images of digits it is better than learned positions on a canvas of "
        "nine times the area.",
        "2506.13277",
        "a decoder like GPT-2 on WikiText-103, and ViT-S: better than strong baselines above all "
        "beyond the trained length, by its abstract. The +2.1 that is often quoted is exact match "
        "on long-context questions, by a summary of the paper, and -24.2 of perplexity could not "
        "be found",
        ("seqpe", "sinusoidal", "rope", "alibi"),
        (
            *(less("seqpe", other, 4) for other in ("sinusoidal", "rope", "alibi")),
            differs("images", "seqpe_input_add", "learned_2d", "accuracy", "pasted", 84, low=0.0),
        ),
        note="SeqPE has twice as many parameters as the other schemes on text.",
    ),
)
