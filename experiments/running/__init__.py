"""Runs the points of studies, on this machine, beside other programs, or in a queue of machines.

It also says what they would take: ``dry_run.py``, with ``topology.py`` and ``collectives.py``.
"""
