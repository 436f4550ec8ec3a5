"""Container images: the same lab as one file system, that any engine runs."""
