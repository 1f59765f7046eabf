"""The configurations and sweeps that come with the package, and how they are found."""

from pathlib import Path

import pytest

from tl_lightning import fit
from tl_lightning.core.packaged import find, find_configs, packaged, summary_of
from tl_lightning.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["configs", "sweeps"])
def test_every_file_of_the_checkout_is_packaged_under_its_path(kind):
    there = {path.relative_to(ROOT / kind).with_suffix("").as_posix() for path in (ROOT / kind).rglob("*.yaml")}
    assert set(packaged(kind)) == there and len(there) >= 5


@pytest.mark.parametrize("path", [*packaged("configs").values(), *packaged("sweeps").values()], ids=lambda p: p.stem)
def test_the_first_line_of_each_says_in_one_sentence_what_it_is_for(path):
    summary = summary_of(path)
    assert path.read_text().startswith("# ")
    assert 20 < len(summary) < 100 and summary[-1] in ".?"


def test_a_name_is_found_where_there_is_no_such_file(empty):
    assert find("configs", "elpv") == str(ROOT / "configs/elpv.yaml")
    assert find("configs", "scenarios/vgg16") == str(ROOT / "configs/scenarios/vgg16.yaml")
    assert find("sweeps", "strategies") == str(ROOT / "sweeps/strategies.yaml")
    assert find("configs", "strategies") is None


def test_a_file_that_exists_wins_over_a_name_and_a_folder_does_not(empty):
    Path("elpv").mkdir()
    assert find("configs", "elpv") == str(ROOT / "configs/elpv.yaml")
    Path("folder").write_text("phases: full\n")
    assert find("configs", "folder") == "folder"


def test_in_a_checkout_the_path_stays_relative(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert find("configs", "machines/gpu") == "configs/machines/gpu.yaml"


def test_names_behind_every_spelling_of_the_option_are_replaced_and_nothing_else(empty):
    elpv, gpu = str(ROOT / "configs/elpv.yaml"), str(ROOT / "configs/machines/gpu.yaml")
    args = ["--config", "elpv", "--config=machines/gpu", "-c", "elpv", "--config", '{"seed_everything": 1}', "elpv"]
    found = ["--config", elpv, f"--config={gpu}", "-c", elpv, "--config", '{"seed_everything": 1}', "elpv"]
    assert find_configs(args) == found


NAMED = " and no packaged configuration (tl configs lists them)"


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("elpw", f"{NAMED}; did you mean elpv?"),
        ("vgg16", f"{NAMED}; did you mean scenarios/vgg16?"),
        ("configs/elpv.yaml", "; did you mean the packaged elpv?"),  # as written where there is a checkout
        ("mine.yaml", "; did you mean mime.yaml?"),
        ("nothing_of_the_kind", NAMED),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(empty, name, tail):
    Path("mime.yaml").write_text("")
    with pytest.raises(UserError) as error:
        find_configs(["--config", name])
    assert str(error.value) == f"--config {name}: there is no such file{tail}"


def test_python_finds_them_as_well(empty):
    with pytest.raises(UserError, match="--config elpw: there is no such file and no packaged configuration"):
        fit("elpw")
