"""ailab: a machine becomes a private AI lab, and stays one."""

__version__ = "0.1.0"
