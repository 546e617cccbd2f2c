"""What changes while training, and how."""
