"""The manual and the README: every command in them is parsed by the parser that it is for, every key is a real one."""

import json
import re
import shlex
import shutil
from pathlib import Path

import parts
import pytest
import yaml
from tiny import write_images

from tl_lightning.cli import COMMANDS, main
from tl_lightning.core.packaged import find_configs, packaged
from tl_lightning.core.quiet import quiet
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHERS = ("pip ", "wandb ", "uv run pytest", "uv run --group")  # commands of other programs


# What only a GPU, or the weights of the run that is meant, would mend; both are checked last.
NOT_HERE = ("torch finds no GPU here", "is the run runs/elpv-1, which trained timm/test_efficientnet")


class Unbuilt(Configuration):
    """A configuration that is read and checked, without a model."""

    def instantiate_classes(self):
        pass


def blocks(page, language):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def shell_lines():
    """Every command of a shell block, with the page that it is on."""
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                for command in line.split(" && "):
                    if command.strip():
                        yield pytest.param(command.strip(), id=f"{page.stem}: {command.strip()[:60]}")


def config_lines():
    """Every command in the comments of a packaged file."""
    for path in [*packaged("configs").values(), *packaged("sweeps").values()]:
        for line in path.read_text().splitlines():
            if found := re.match(r"#   (tl .*?)(   .*)?$", line):
                yield pytest.param(found[1], id=f"{path.stem}: {found[1][:60]}")


def inline():
    """What pages quote in the text, as ``tl fit`` or ``--model.lr``."""
    for page in PAGES:
        text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        yield from ((page, quoted) for quoted in re.findall(r"`([^`\n]+)`", text))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the files that the manual speaks of."""
    monkeypatch.chdir(tmp_path)
    Path("runs/elpv-sweep-1").mkdir(parents=True)
    for name in ("mine", "apples", "advice", "runs/elpv-sweep-1/best"):
        Path(f"{name}.yaml").write_text("model: {backbone: timm/tf_efficientnet_lite0}\ndata: {source: x}\n")
    shutil.copytree(ROOT / "tests/fixtures/run_0.1", "runs/elpv-1")
    quiet()


def check(args):
    """Reads a command's own options, and then those of ``tl fit``."""
    name, *rest = args
    if "--help" in rest or name == "--help":
        return
    rest = find_configs(rest)
    if name == "submit":
        place = rest.index("--")
        check(rest[place + 1 :])
    rest = rest if name in parts.FIT_ONLY else parts.parse(name, rest).rest
    if name in ("resume", "validate", "test", "check_preprocessing"):
        rest = ["--config", "elpv", *rest]  # their configuration is the run's own
    if rest:
        try:
            Unbuilt(find_configs(rest), folder=None)
        except UserError as error:
            if not any(words in str(error) for words in NOT_HERE):
                raise


@pytest.mark.parametrize("line", [*shell_lines(), *config_lines()])
def test_a_command_is_one_that_its_parser_takes(here, line):
    if line.startswith(OTHERS):
        return
    words = shlex.split(line.partition(" > ")[0], comments=True)
    start = words.index("tl_lightning") if "tl_lightning" in words else words.index("tl")
    assert words[:start] in ([], ["uv", "run"], ["srun", "--ntasks", "4"], ["torchrun", "--nproc_per_node", "4", "-m"])
    check(words[start + 1 :])


@pytest.fixture(scope="module")
def keys():
    """Every option there is: of ``tl fit``, of its classes, and of each command."""
    quiet()
    known = {option.rstrip("+") for action in Unbuilt(find_configs(["--config", "elpv"]), folder=None).parser._actions
             for option in action.option_strings}  # fmt: skip
    known |= {f"--{key}" for key in re.findall(r"^\| `([\w.]+)` \|", parts.settings(), flags=re.MULTILINE)}
    for name in COMMANDS:
        known |= {option for action in parts.own_options(name) for option in action.option_strings}
    return known | {"--help", "--older_than"}


ELSEWHERE = {
    "--nnodes",
    "--node_rank",
    "--master_addr",
    "--signal",
    "--group",
    "--me",
}  # of torchrun, sbatch, uv, squeue


def test_every_option_in_the_text_is_one_of_ours(keys):
    quoted = {(page.name, option) for page, text in inline() for option in re.findall(r"(?<![\w-])--[a-z][\w.]*", text)}
    assert len(quoted) > 60
    assert {(page, option) for page, option in quoted if option not in keys | ELSEWHERE} == set()


def test_every_command_in_the_text_is_one_of_ours():
    quoted = {found[1] for _, text in inline() if (found := re.match(r"tl ([a-z_]+)", text))}
    assert quoted == set(COMMANDS)


def test_every_script_and_folder_in_the_text_is_there():
    for page, text in inline():
        for path in re.findall(r"^(?:python )?((?:benchmarks|configs|sweeps|tests|docs)/[\w./]*)$", text):
            assert (ROOT / path).exists(), (page.name, path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_yaml_in_a_page_is_a_configuration(here, page):
    for block in blocks(page, "yaml"):
        Unbuilt([*find_configs(["--config", "elpv"]), "--config", json.dumps(yaml.safe_load(block))], folder=None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_in_a_page_imports_what_there_is(page):
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")
        for line in block.splitlines():
            if line.startswith("from "):
                exec(line, {})


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text()):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_finding_is_listed_and_says_what_rests_on_it():
    scripts = {path.name: path.read_text() for path in (ROOT / "findings").glob("*.sh")}
    assert set(re.findall(r"^\| `(\w+\.sh)`", (ROOT / "findings/README.md").read_text(), re.MULTILINE)) == set(scripts)
    for name, text in scripts.items():
        head = text.partition("set -euo pipefail")[0]
        assert [word for word in ("# Expected: ", "# Seen: ", "# Here: ") if word not in head] == [], name
        assert "tl_lightning" not in text and "trap 'rm -rf \"$work\"' EXIT" in text, name


def test_the_readme_has_two_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_readme_names_every_command():
    text = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if f"`tl {name}" not in text] == []


@pytest.mark.slow
def test_the_tutorial_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos", classes=("bruised", "sound"))
    done = []
    for block in blocks(ROOT / "docs/tutorial.md", "bash"):
        for line in block.splitlines():
            words = shlex.split(line)
            if words[0] == "tl":
                quick = ["--data.image_size", "32", "--trainer.max_epochs", "1"] if "elpv" in words else []
                assert main([*words[1:], *quick]) == 0, line
                done.append(words[1])
    assert done == ["fit", "init", "show_data", "fit", "fit", "validate", "test", "predict"]
    assert Path("predictions.csv").read_text().count("\n") == 17
    assert "test" in json.loads(Path("scores.json").read_text()) or Path("scores.json").stat().st_size > 20
