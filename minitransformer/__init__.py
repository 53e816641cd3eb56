"""Train small language models, keep every run, and fit neural scaling laws to them."""

__version__ = "0.1.0"
