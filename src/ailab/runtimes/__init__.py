"""Runtimes: what runs tasks, behind one small contract."""
