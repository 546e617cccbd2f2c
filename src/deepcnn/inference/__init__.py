"""The answers of a trained network, and how good they are."""
