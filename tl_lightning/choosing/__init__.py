"""Choosing: which model, which strategy, and whether transfer helped."""
