"""What tests of clusters share."""

import pytest
from slurm_lab import slurm_lab


@pytest.fixture(scope="session")
def lab():
    """A real SLURM with two nodes, for as long as the tests run."""
    with slurm_lab() as cluster:
        yield cluster
