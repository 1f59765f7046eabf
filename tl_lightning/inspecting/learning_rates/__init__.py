"""Which learning rates train: a range test."""
