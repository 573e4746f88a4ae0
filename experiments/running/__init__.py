"""Runs the points of studies, on this machine, beside other programs, or in a queue of machines.

points.py, sweep.py      names the runs of a study; trains and evaluates all of them
schedule.py, workers.py  which points run next, and in how many processes
status.py, dry_run.py    what is finished, and what the rest will cost
submit/                  queues: SLURM, Kubernetes, Cloud TPU, SkyPilot
topology.py              chips that this machine lacks; ``collectives.py`` reads what they send
"""
