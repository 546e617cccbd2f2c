"""From a data set to the batches that a network sees."""
