"""Runs the points of studies, on this machine, beside other programs, or in a queue of machines.

points.py, sweep.py      names the runs of a study; what a study says of them
finished.py              reads their results
schedule.py, workers.py  runs the points of an experiment, in how many processes
status.py                what is finished
submit/                  queues: SLURM, Kubernetes, Cloud TPU, SkyPilot
"""
