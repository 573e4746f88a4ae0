"""Reads and writes trained models.

published.py     published models: loads, extends and saves them for ``transformers``
weight_files.py  the files of published weights, safetensors and GGUF
trained.py       finished runs on text, or published weights in their place
export.py        a finished run, for ``transformers``
"""
