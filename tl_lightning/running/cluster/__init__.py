"""Batch jobs of a cluster: what is asked for, checked, written as a readable script, and queued."""
