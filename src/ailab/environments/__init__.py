"""Environments: a stack and the user's packages, locked, built into generations, switched at once, and proven.

`lock.ensure_lock` -> `interpreters.find` -> `generations.Generations.build` -> `.use`; `kernel.verify` proves.
"""
