"""Measures trained models.

lengths.py          losses beyond the trained length, under every protocol
long_document.py    the loss of each token of one document of any length
probes.py           how a model uses positions; ``layer_attention.py`` reads its attention
harness.py          tasks of lm-evaluation-harness
batches.py          many rows through a model, in batches
"""
