"""Holds what the report of tasks that are learned alone and the gallery still use."""
