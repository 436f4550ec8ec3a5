"""Bundles: a lab in one file, for machines without a network. The format, and what fetches and unpacks it."""
