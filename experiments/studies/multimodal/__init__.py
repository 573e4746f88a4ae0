"""Holds the experiments on images, screens, videos and stories."""
