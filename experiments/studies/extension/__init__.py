"""Extends a trained RoPE model by every method.

study.py        the study, for ``launch.py``
encodings.py    the encodings of all methods, as a config describes them
evaluations.py  the three ways in which an extended model is evaluated
"""
