"""Tests every scheme on every question, in language and in tasks, and writes the atlas."""

import math

from experiments.evaluation.probes import probe
from experiments.progress import stage
from experiments.results import atlas
from experiments.results.lengths import WINDOWED
from experiments.results.record import read_json
from experiments.results.reports import atlas_page
from experiments.results.reports.drawing import page_style
from experiments.studies import gallery
from experiments.studies.combined import Studies
from experiments.studies.tasks import TASKS
from experiments.studies.text import Comparison
from posenc_jax.registry import PATTERNS

# The question of each task, by its topic in the atlas.
ASKED = {name: str(task.__doc__).splitlines()[0] for name, task in TASKS.items()}


class Language(Comparison):
    """Compares the schemes on text, and looks into the models of the first seed."""

    def check(self):
        super().check()
        if len(next(iter(self.documents.values()))) < 2:
            raise ValueError(
                f"eval.documents={self.protocols.documents}: the probes of a model need two texts "
                "or more, and the corpus must have as many"
            )

    def evaluate(self, point, model):
        evaluation = super().evaluate(point, model)
        # A model that diverged cannot be probed.
        if point.seed == 0 and math.isfinite(evaluation["records"][0]["loss"]):
            split = next(iter(self.documents))
            windows_NL = self.documents[split][:, : self.recipe.length + 1]
            evaluation["probes"] = {"scheme": point.scheme} | probe(model, windows_NL, seed=0)
        return evaluation

    def probes(self) -> dict[str, dict]:
        """Returns the results of the probes of the first seed's models, by scheme."""
        probed = [run["probes"] for run in self.evaluations() if "probes" in run]
        return {probes["scheme"]: probes for probes in probed}


class Atlas(Studies):
    """Runs a comparison on text, one on tasks, and the controls; see ``configs/atlas.py``."""

    def write_report(self, command):
        studies = {name: part.study(command) for name, part in self.parts.items()}
        language: Language = self.parts["language"]
        length = language.recipe.length
        about = self.about(command) | {"config": self.config, "train_length": length}
        about["rates"] = {name: part.rates() for name, part in self.parts.items()}
        about["setup"] = (
            f"Text ({language.corpus.name}) is read by {self.setup('language')}; tasks by "
            f"{self.setup('tasks')}. Extensions of RoPE have the factor of the length that is read."
        )
        about["tasks"] = ASKED
        answers = atlas.atlas_of(studies, about)
        atlas_page.print_summary(answers, self.console)
        ledger = read_json(self.workdir / "claims" / "claims.json") or {"claims": []}
        cards = self.cards([name for name in answers.schemes if name != WINDOWED])
        folder = self.workdir / "atlas"
        return atlas_page.write(folder, answers, cards, language.probes(), ledger["claims"])

    def cards(self, schemes: list[str]) -> dict[str, str]:
        """Returns what each scheme does to attention, with the keywords that it has on text."""
        language, model = self.parts["language"], self.parts["language"].config["model"]
        heads, head_dim = model["num_heads"], model["head_dim"]
        head_dim = head_dim or model["model_dim"] // heads
        sizes = gallery.Sizes(language.recipe.length, heads, head_dim)
        with stage("atlas  pages", len(schemes), self.console) as advance, page_style():
            cards = {}
            for name in schemes:
                keywords = language.keywords(name, gallery.TIMES)
                if name in PATTERNS:
                    keywords |= {"num_layers": model["num_layers"]}
                curves = f"<figcaption>{gallery.CURVES}</figcaption>"
                cards[name] = gallery.card(name, sizes, keywords) + curves
                advance(name)
        return cards
