"""Keeps what runs have found, and computes what is said about it.

record.py, seal.py, metrics.py    the files of a run; ``bucket.py`` keeps them in a bucket
locks.py                          which program works in a folder
environment.py                    what a run is made with
archive.py                        the results of many runs as one small file
table.py                          the tidy table of a study, and what is shown of it
report.py, page.html, drawing.py  the report of every study
statistics.py, speedup.py         statistics over seeds, for every kind of study
comparisons.py                    which scheme is better: paired by seed, and corrected
lengths.py, extensions.py         the records of studies on text, and of longer contexts
panels.py                         the records of studies on drawn examples
ladder.py, leaderboard.py         the records of the ladder, and of the track
learning.py                       how fast models learn one task
answers.py                        what was measured, as one tidy table with verdicts
atlas.py, atlas_data.py           all answers and their verdicts, and their files
ledger.py                         published claims and their verdicts
reports/                          tables, figures and pages of all these
"""
