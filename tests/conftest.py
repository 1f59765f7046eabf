"""What every test gets."""

import signal
from pathlib import Path

import pytest

# A shell starts what it puts into the background deaf to Ctrl-C, and so would be what the tests start to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or fills the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TL_CACHE_DIR", str(folder))
    return folder
