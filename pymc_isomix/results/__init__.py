"""What is done with a fitted approximation."""
