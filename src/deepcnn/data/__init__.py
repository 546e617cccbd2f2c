"""Reading data sets of small images, and giving them to the trainer batch by batch."""
