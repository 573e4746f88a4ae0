"""Keeps what runs have found, and computes what is said about it.

record.py, seal.py, metrics.py    the files of a run; ``bucket.py`` keeps them in a bucket
locks.py                          which program works in a folder
environment.py                    what a run is made with
archive.py                        the results of many runs as one small file
table.py                          the tidy table of a study, and tables of words made from it
comparisons.py, statistics.py     which scheme is better: paired by seed, and corrected; seeds
report.py, page.html, drawing.py  the report of every study, and its figures
pages.py                          the tables of docs/, from the tidy tables in docs/data
lengths.py, extensions.py         losses of texts, and of models that were made longer
panels.py                         answers in drawn examples, and how fast they are learned
ladder.py                         which advantages last
ledger.py                         published claims, and the rule for verdicts
"""
