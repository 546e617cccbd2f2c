"""A run: its directory, log, checkpoints and summaries."""
