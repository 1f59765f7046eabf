"""The wheel: what a user of pip has, in an empty folder."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ELSEWHERE = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built by way of the source distribution, as an index would have it."""
    folder = tmp_path_factory.mktemp("dist")
    build = ["uv", "build", "--quiet", "--out-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel in an environment of its own, which borrows the dependencies of this one but not the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    python = folder / "bin" / "python"
    install = ["uv", "pip", "install", "--quiet", "--no-deps", "--python", str(python), str(wheel)]
    subprocess.run(install, check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
    return folder / "bin" / "tl"


@pytest.mark.slow
def test_the_wheel_carries_each_configuration_and_sweep_once(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for kind in ("configs", "sweeps"):
        there = {f"tl_lightning/{path.relative_to(ROOT)}" for path in (ROOT / kind).rglob("*.yaml")}
        assert {name for name in names if name.startswith(f"tl_lightning/{kind}/")} == there
    assert not [name for name in names if name.endswith(".yaml") and not name.startswith("tl_lightning/")]


@pytest.mark.slow
def test_the_packaged_demo_runs_in_an_empty_folder(installed, tmp_path):
    def tl(*args):
        return subprocess.run(
            [str(installed), *args], cwd=tmp_path, env={**ELSEWHERE, "TL_CACHE_DIR": str(tmp_path / "cache")},
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    assert tl("configs").startswith("elpv ")
    tiny = ["--data.image_size", "32", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    tl("fit", "--config", "elpv", *tiny)
    run = tmp_path / "runs/elpv-1"
    assert json.loads((run / "summary.json").read_text())["status"] == "completed"
    tl("init", "mine", "--source", "elpv")
    assert (tmp_path / "mine.yaml").is_file()
