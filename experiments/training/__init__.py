"""Trains models: data, recipe, step, loop, checkpoints, and arrays on devices."""
