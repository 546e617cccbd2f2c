"""Engines: the gradients and the update for one batch, on some devices of some processes."""
