"""Reads trained models back.

trained.py  finished runs on text, or published weights in their place
export.py   writes a finished run for ``transformers``
"""
