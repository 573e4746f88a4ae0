"""Reads trained models back, and writes them for ``transformers``."""
