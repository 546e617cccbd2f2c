"""What a trained network is worth, as a page: figures, pictures, comparisons, and a demo."""
