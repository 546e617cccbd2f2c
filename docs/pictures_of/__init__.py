"""What the pictures of the documents are made of."""
