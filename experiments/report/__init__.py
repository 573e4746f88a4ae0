"""Holds the records of all experiments, and makes tables, figures and pages from them.

``study.py``, ``drawing.py`` and ``page.py`` are for every experiment. ``lengths``, for text,
``panels``, for images, videos and tasks, and ``extensions`` each have their records, their figures
and their report. ``atlas`` and ``ledger`` make their pages of the records of several experiments.
"""

from experiments import require

require({"matplotlib": "matplotlib", "PIL": "pillow"})
