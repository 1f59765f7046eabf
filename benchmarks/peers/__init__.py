"""The contestants of ``feature_cache.py``: each runs in a process of its own and prints what it measured."""
