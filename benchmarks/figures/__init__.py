"""The documents' figures, made from the committed logs."""
