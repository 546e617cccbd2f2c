"""Finds what is wrong with a data set: duplicates, leaks, odd files, wrong labels, few examples."""
