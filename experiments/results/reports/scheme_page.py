"""Makes the page of one scheme in the atlas."""

import math
from typing import Any

from matplotlib.figure import Figure

from experiments.results.answers import AGAINST, OWN_WINDOW, shown
from experiments.results.atlas import EFFECTIVE, Atlas, counts
from experiments.results.comparisons import statement
from experiments.results.lengths import GAIN, WINDOWED
from experiments.results.reports import probe_figures
from experiments.results.reports.drawing import finish, styles_of, svg
from experiments.results.reports.templates import figures, fill

_WHOM = {**{name: name for name in AGAINST}, OWN_WINDOW: "its own window"}


def body(atlas: Atlas, scheme: str, card: str, probes, claims: list[dict[str, Any]]) -> str:
    """Returns the page of a scheme as HTML; see ``atlas_page.write`` for the other arguments."""
    answers = atlas.answers[atlas.answers["scheme"] == scheme]
    drawn = probe_figures.draw(probes, atlas.about["train_length"]) if probes else {}
    same = next(([one, *rest] for one, rest in atlas.distinct.items() if scheme in [one, *rest]))
    return fill(
        "scheme.html",
        scheme=scheme,
        same=[name for name in same if name != scheme],
        trained="rope, through a window of the trained length"
        if scheme == WINDOWED
        else atlas.trained.get(scheme, scheme),
        card=card,
        count=len(atlas.questions),
        verdicts=[
            {"against": whom} | won
            for name, whom in _WHOM.items()
            if name != scheme and any((won := counts(answers, name)).values())
        ],
        length=_by_length(atlas, scheme),
        contexts=[
            f"{row['mean']:.0f} on {'the manual' if 'manual' in row['topic'] else 'text'}"
            for row in answers.to_dict("records")
            if row["topic"].startswith(EFFECTIVE)
        ],
        gain=GAIN,
        probes=figures(drawn),
        whom=_WHOM,
        rows=[row | {"shown": shown(row)} for row in answers.to_dict("records")],
        statement=statement(atlas.families),
        claims=[claim for claim in claims if scheme in claim["schemes"]],
    )


def _by_length(atlas: Atlas, scheme: str) -> str:
    """Draws the loss by length of the scheme, and of the schemes that it is compared with."""
    of_text = atlas.answers[atlas.answers["topic"] == "text"]
    losses, margins = (
        of_text.pivot(index="scheme", columns="multiple", values=key).replace(math.inf, math.nan)
        for key in ("mean", "margin")
    )
    if scheme not in losses.index:
        return ""
    drawing = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = drawing.add_subplot()
    labels = [f"{multiple:g}x" for multiple in losses.columns]
    styles = styles_of(dict.fromkeys((scheme, *AGAINST)))
    for name in styles:
        if name in losses.index:
            bars = dict(yerr=margins.loc[name].fillna(0.0), capsize=2, label=name)
            axes.errorbar(labels, losses.loc[name], **bars, **styles[name])
    alone = atlas.answers[atlas.answers["topic"] == "text, windowed"].set_index("scheme")["mean"]
    if scheme in alone.index:
        colour = styles[scheme]["color"]
        label = f"{scheme} through its own window"
        axes.axhline(alone[scheme], color=colour, linestyle=":", label=label)
    axes.set(xlabel="context over the trained length", ylabel="bits per byte")
    finish(axes)
    axes.legend(frameon=False)
    return svg(drawing)
