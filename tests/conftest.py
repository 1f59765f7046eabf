"""What every test gets."""

import os
import signal
from pathlib import Path

import pytest

# Other workers have the other cores. It is read when torch is imported, here and in children.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell starts what it puts into the background deaf to Ctrl-C, and so would be what the tests start to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or fills the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TL_CACHE_DIR", str(folder))
    return folder
