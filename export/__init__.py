"""Builds, exports and checks VGG19 encoders that return where each pooled maximum came from."""

__version__ = "0.3.0"
