"""Hardware-backed custody of AI model weights, from training to production."""

__version__ = "0.1.0"
