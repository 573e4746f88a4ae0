"""Runs the points of studies, on this machine, beside other programs, or in a queue of machines.

points.py, sweep.py      names the runs of a study; trains and evaluates all of them
finished.py              reads their results
schedule.py, workers.py  which points run next, and in how many processes
status.py                what is finished
submit/                  queues: SLURM, Kubernetes, Cloud TPU, SkyPilot
"""
