"""Adapters do all input and output: one folder per technology, each implementing ports."""
