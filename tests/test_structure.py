"""The house: rooms with one way down, nothing loose beside them, and the names that old run folders rely on."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tl_lightning

PACKAGE = Path(tl_lightning.__file__).parent
LOOSE = {"__init__", "__main__", "cli", "errors"}
# Each room may import from itself and from those before it.
ROOMS = [
    "core",
    "preprocess",
    "metrics",
    "probe",
    "backbones",
    "data",
    "finetuning",
    "tasks",
    "feature_cache",
    "training",
    "experiment",
    "results",
    "inspecting",
    "choosing",
    "running",
]


def imported(path: Path) -> Iterator[str]:
    """The rooms that a file names in its imports, wherever they stand."""
    for node in ast.walk(ast.parse(path.read_text())):
        modules: list[str] = []
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            modules = [f"{module}.{alias.name}" for alias in node.names] if module == "tl_lightning" else [module]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            package, _, rest = module.partition(".")
            if package == "tl_lightning" and rest:
                yield rest.split(".")[0]


def test_nothing_lies_loose_beside_the_rooms():
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_stands_below_it(room):
    below = {"errors", *ROOMS[: ROOMS.index(room) + 1]}
    upward = {f"{path.name} imports {name}" for path in (PACKAGE / room).rglob("*.py") for name in imported(path)} - {
        f"{path.name} imports {name}" for path in (PACKAGE / room).rglob("*.py") for name in below
    }
    assert not upward


def test_only_the_module_entry_point_imports_the_command_line():
    importers = {path.name for path in PACKAGE.rglob("*.py") if "cli" in set(imported(path))}
    assert importers == {"__main__.py"}


def test_tests_mirror_the_rooms():
    tests = Path(__file__).parent
    assert {path.name for path in tests.iterdir() if path.is_dir() and any(path.rglob("test_*.py"))} <= set(ROOMS)


def test_names_that_old_run_folders_rely_on_can_be_imported():
    from tl_lightning.data.module import ImageDataModule
    from tl_lightning.experiment import fit, resume, run
    from tl_lightning.preprocess import Preprocess
    from tl_lightning.tasks import classification, multi_label, ordinal, regression

    names = [classification.ClassificationTask, multi_label.MultiLabelTask, ordinal.OrdinalTask]
    assert all(map(callable, [*names, regression.RegressionTask, Preprocess, fit, resume, run]))
    assert ImageDataModule.__qualname__ == "ImageDataModule"  # under which Lightning keeps its state in a checkpoint


def test_tasks_and_data_modules_have_the_arguments_that_are_linked():
    # jsonargparse silently drops a link whose target a class lacks.
    from tl_lightning.data.images.module import ImageDataModule
    from tl_lightning.experiment.parser import arguments_of
    from tl_lightning.tasks import TASKS

    for task in TASKS:
        assert {"backbone", "weights", "classes", "preprocess"} <= set(arguments_of(task))
    data = set(arguments_of(ImageDataModule))
    assert {"preprocess", "seed", "problem_type", "classes", "image_size"} <= data and "input_column" not in data


def private_names(path: Path) -> Iterator[str]:
    """Names with a leading underscore that a file takes from elsewhere, as an import or as an attribute."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (part for name in node.names for part in [*(node.module or "").split("."), name.name])
        elif isinstance(node, ast.Attribute):
            yield node.attr


def own_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def test_private_names_of_lightning_and_torch_are_in_one_file():
    documented = {"_exit", "_replace", "_asdict"}  # of os and of named tuples
    argparse, optuna = {"_actions", "_option_string_actions"}, {"_trial_id"}
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "core" / "private.py"]
    known = {name for path in files for name in own_names(path)} | documented | argparse | optuna
    found = {
        f"{path.name}: {name}"
        for path in files
        for name in private_names(path)
        if name.startswith("_") and not name.startswith("__") and name not in known
    }
    assert not found


def assigned(path: Path) -> Iterator[tuple[str, str]]:
    """What a file assigns to: the last name before the attribute, and the attribute."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            yield name.lstrip("_"), node.attr


@pytest.mark.parametrize(
    ("room", "names"),
    [("tasks", {"task", "model", "pl_module"}), ("data", {"data", "datamodule"})],
)
def test_the_state_of_a_task_and_of_a_data_module_is_set_by_itself(room, names):
    lightnings = {"trainer"}  # which its own trainer sets too
    found = {
        f"{path.name}: {name}.{attribute}"
        for path in PACKAGE.rglob("*.py")
        if PACKAGE / room not in path.parents
        for name, attribute in assigned(path)
        if name in names and attribute not in lightnings
    }
    assert not found


def test_commands_build_a_configuration_in_one_way():
    calls = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Configuration"
    }
    assert calls == {"experiment/preamble.py", "experiment/experiment.py", "experiment/evaluation.py"}


def test_no_other_room_asks_what_kind_of_target_there_is():
    # What is particular about a kind is an objective's to say. Data have kinds of their own, and tl init guesses one.
    kinds = {"multiclass", "ordinal", "multilabel", "regression"}
    found = set()
    for path in (path for room in set(ROOMS) - {"tasks", "data", "metrics"} for path in (PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            compared = [*node.comparators, node.left] if isinstance(node, ast.Compare) else []
            keys = [key for key in node.keys if key is not None] if isinstance(node, ast.Dict) else []
            parts = (part for each in [*compared, *keys] for part in ast.walk(each))
            if kinds & {part.value for part in parts if isinstance(part, ast.Constant)}:
                found.add(path.name)
    assert found <= {"init.py"}
