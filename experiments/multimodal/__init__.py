"""Holds the experiments on images, screens, videos and stories."""

# Which says what is missing of the packages that draw.
import experiments.report  # noqa: F401
