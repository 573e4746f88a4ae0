"""Holds the records of all experiments, and makes tables, figures and pages from them.

``study.py``, ``drawing.py`` and ``page.py`` are for every experiment. ``lengths``, for text, and
``panels``, for images and videos, each have their records, their figures and their report.
"""
