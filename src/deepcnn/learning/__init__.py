"""Everything that changes while training, and how it changes."""
