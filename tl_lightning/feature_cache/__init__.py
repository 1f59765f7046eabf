"""Paying only for what trains: what is frozen is computed once, and a head on it is solved."""
