"""Pages about how good a trained network is: figures, pictures, comparisons, and a demo."""
