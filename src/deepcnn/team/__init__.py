"""The processes that work on one training."""
