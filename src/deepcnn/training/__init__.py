"""The loop, and all that it needs: new runs and resumed ones."""
