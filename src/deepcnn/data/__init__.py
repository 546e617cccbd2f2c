"""Reading small-image data, and giving it to the trainer batch by batch."""
