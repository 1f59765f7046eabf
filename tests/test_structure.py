"""Imports run one way: what knows nobody stays that way, and nothing imports the command line."""

import ast
import inspect
from pathlib import Path

import pytest

import tl_lightning

PACKAGE = Path(tl_lightning.__file__).parent
BASE = {"errors", "console", "preprocess"}
ALLOWED = {
    "errors": set(),
    "console": set(),
    "preprocess": {"errors"},
    "randomness": set(),
    "heads": {"errors"},
    "cache_folder": {"errors"},
    "activations": {"errors", "cache_folder"},
    "probe": {"errors"},
    "cka": set(),
    "losses": set(),
    "metrics": set(),
    "answers_file": {"errors"},
    "precision": set(),
    "run_folder": {"errors"},
    "processes": set(),
    "interruption": {"processes"},
    "plots": set(),
    "arguments": {"errors"},
    "backbones": {*BASE, "run_folder"},
    "data": {*BASE, "randomness", "cache_folder", "interruption"},
    "finetuning": {"errors", "backbones"},
    "guards": {"errors", "finetuning"},
    "tasks": {*BASE, "backbones", "heads", "losses", "metrics", "precision", "finetuning", "probe", "randomness"},
}


def imported(path):
    """The parts of the package that a file names in its imports, wherever they stand."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            parts = name.split(".")
            if parts[0] == "tl_lightning" and len(parts) > 1:
                yield parts[1]


def files_of(part):
    return sorted((PACKAGE / part).rglob("*.py")) if (PACKAGE / part).is_dir() else [PACKAGE / f"{part}.py"]


# These stand on everything above; between them the order is that of this list, later on earlier.
TOP = [
    "cache_command",
    "tables",
    "callbacks",
    "agreement",
    "checkpoints",
    "compilation",
    "throughput",
    "extraction",
    "parser",
    "run",
    "forgetting",
    "checks",
    "wandb_run",
    "global_batch",
    "configuration",
    "evaluation",
    "memory",
    "final_weights",
    "keeping",
    "lr_finder",
    "head_solver",
    "depth_probe",
    "leaks_command",
    "show_data",
    "preprocessing_check",
    "training",
    "experiment",
    "many_runs",
    "crossval",
    "choosing",
    "running",
    "cli",
]


def test_every_part_has_its_place():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__", "__main__"} == {*ALLOWED, *TOP}


@pytest.mark.parametrize("part", TOP)
def test_the_top_parts_import_only_what_stands_before_them(part):
    names = {name for path in files_of(part) for name in imported(path)} - {part}
    assert not names & set(TOP[TOP.index(part) :])


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_run_one_way(part):
    names = {name for path in files_of(part) for name in imported(path)} - {part}
    assert names <= ALLOWED[part]


def test_only_the_module_entry_point_imports_the_command_line():
    importers = {path.name for path in PACKAGE.rglob("*.py") if "cli" in set(imported(path))}
    assert importers == {"__main__.py"}


def test_tasks_and_data_modules_have_the_arguments_that_are_linked():
    # jsonargparse silently drops a link whose target a class lacks.
    from tl_lightning.data.module import ImageDataModule
    from tl_lightning.tasks import TASKS

    for task in TASKS:
        assert {"backbone", "weights", "classes", "preprocess"} <= set(inspect.signature(task).parameters)
    data = set(inspect.signature(ImageDataModule).parameters)
    assert {"preprocess", "seed", "answers", "classes", "image_size"} <= data
