"""The training loop and all that it needs, for new and for resumed runs."""
