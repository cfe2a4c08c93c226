"""State space sequence models that run anywhere PyTorch runs, and show what they remember."""

__version__ = "0.1.0"
