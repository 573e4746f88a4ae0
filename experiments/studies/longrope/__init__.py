"""Runs LongRoPE: the search for its factors, progressive extension, short-context recovery.

search.py      candidates, and the three published ways to make new ones; pure NumPy
encoding.py    the encoding whose factors are arrays
fitness.py     the losses of candidates, which are inputs of one compiled program
stages.py      searches, fine-tuning and further searches of one model, and their scores
plan.py        which stages run, to which lengths, on which documents
study.py       all of it for each seed, for ``launch.py``
"""
