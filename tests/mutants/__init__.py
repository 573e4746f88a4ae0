"""Puts small errors into the library, one at a time, and lists those that no test notices."""
