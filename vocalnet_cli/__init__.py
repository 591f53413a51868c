"""VocalNet toolkit: train, talk with and measure speech LLMs of the VocalNet family."""

__version__ = "0.2.0"
