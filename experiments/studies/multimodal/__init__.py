"""Holds the experiments on images, screens, videos and stories."""

# The import says which of the packages that draw are missing.
import experiments.results.reports  # noqa: F401
