"""What is wrong with a data set: duplicates, leaks, odd files, wrong labels, too few examples."""
