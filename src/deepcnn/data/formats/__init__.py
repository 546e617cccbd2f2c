"""Readers of file formats: bytes to NumPy, without torch."""
