"""Holds published claims, and the experiment that tests them.

Every claim is a few numbers and the range in which its paper says that they lie;
``results/ledger.py`` decides. The numbers of papers are in the claims' sentences, and
docs/data/claims.md says which tests were changed after results had been seen.
"""

from experiments.studies.claims import others, text

CLAIMS = (*text.CLAIMS, *others.CLAIMS)
