"""Puts small errors into the library, one at a time, and lists the errors that no test notices."""
