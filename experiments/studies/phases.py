"""Compares ways to train on longer texts within one run, at equally many tokens."""

import dataclasses

from experiments.studies.text import Comparison


class Phased(Comparison):
    """Runs a config of ``configs/phases.py``; see ``make_experiment`` for the arguments.

    A variant is a scheme of ``config.encodings`` and its phases in ``config.plans``. All variants
    are evaluated on the same texts, at multiples of ``config.train.length``.
    """

    title = "Longer texts within one run"

    def recipe_of(self, point):
        plan = self.config["plans"][point.scheme]
        return dataclasses.replace(super().recipe_of(point), phases=plan)

    def task(self, point):
        return dataclasses.replace(super().task(point), recipe=self.recipe_of(point))
