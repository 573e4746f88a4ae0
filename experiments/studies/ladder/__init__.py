"""Trains schemes longer, at other lengths and in other sizes, to tell which advantages last."""
