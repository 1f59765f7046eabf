"""``tl configs`` at the command line."""

import subprocess
import sys
from pathlib import Path

from tl_lightning.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"


def test_every_configuration_is_listed_with_its_first_line(capsys):
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list(CONFIGS.rglob("*.yaml")))
    (demo,) = [line for line in lines if line.startswith("elpv ")]
    assert (
        demo.split(maxsplit=1)[1]
        == "The demo: solar cells, functional or defective, in under three minutes on two CPU cores."
    )


def test_one_is_printed_as_it_is(capsys):
    assert main(["configs", "scenarios/vgg16"]) == 0
    assert capsys.readouterr().out == (CONFIGS / "scenarios/vgg16.yaml").read_text()


def test_an_unknown_one_is_one_line(capsys):
    assert main(["configs", "scenarios/vgg"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tl configs: scenarios/vgg is no packaged configuration; did you mean scenarios/vgg16")
    assert error.count("\n") == 1


def test_listing_imports_no_torch():
    code = "import sys; from tl_lightning.cli import main; main(['configs']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
