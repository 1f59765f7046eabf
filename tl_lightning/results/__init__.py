"""A finished run: loaded, asked for predictions."""
