"""Turns the bytes of a submit or a batch into notifications that can be stored."""
