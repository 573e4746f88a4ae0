"""Runs the points of studies, on this machine, beside other programs, or in a queue of machines."""
