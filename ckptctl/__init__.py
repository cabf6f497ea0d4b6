"""Save a whole training job, process tree and GPU memory, and bring it back as if it had never stopped."""

from ckptctl.reporting import report

__all__ = ["report"]
__version__ = "0.1.0"
