"""The records of all experiments, and the tables, figures and pages made of them.

``study.py``, ``drawing.py`` and ``page.py`` are for every experiment. ``lengths``, for text, and
``panels``, for images and videos, each have their records, their figures and their report.
"""
