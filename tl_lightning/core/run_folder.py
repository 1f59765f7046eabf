"""What a run leaves behind: a folder that a person and a machine can read. Knows no torch, so it opens at once."""

import json
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tl_lightning.core.claims import CLAIM, Claim, claim
from tl_lightning.core.files import make_folder, numbered, user_path, write_new, write_text
from tl_lightning.errors import UserError


class RunFolder:
    """The folder of one run and the names of what is in it.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = user_path(path)
        self._claim: Claim | None = None
        self._made: list[Path] = []  # folders that were made for it, itself first

    @classmethod
    def create(cls, run_dir: str | None, *, name: str, parent: Path = Path("runs")) -> "RunFolder":
        """Makes a new folder that is this run's alone, and claims it.

        Args:
            run_dir: Where the user wants it; `None` for the next free ``<parent>/<name>-<n>``.
            name: The configuration's name.
            parent: Where numbered folders go.

        Raises:
            UserError: If the user's folder holds something already, another run has it, or it cannot be made.
        """
        where = parent if run_dir is None else user_path(run_dir)
        made = [path for path in (where, *where.parents) if not os.path.lexists(path)]
        try:
            make_folder(where)
            folder = cls(where) if run_dir is not None else cls._numbered(parent, name)
            folder._made = made if run_dir is not None else [folder.path, *made]
            folder.claim()
            if run_dir is not None:
                folder._check_empty()
        except OSError as error:
            raise UserError(f"the run folder {where} cannot be made: {error.strerror or error}") from error
        return folder

    @classmethod
    def _numbered(cls, parent: Path, name: str) -> "RunFolder":
        for path in numbered(parent, name):
            # So two runs never share one; and a run that was refused may just have removed the parent.
            with suppress(FileExistsError, FileNotFoundError):
                path.mkdir(parents=True)
                break
        return cls(path)

    def _check_empty(self) -> None:
        if any(path.name != CLAIM for path in self.path.iterdir()):
            self.release()
            holds = "already holds a run" if self.config.exists() else "is not empty"
            raise UserError(f"--run_dir {self.path} {holds}; name another folder, or leave --run_dir out for a new one")

    @classmethod
    def next_free(cls, name: str, *, parent: Path = Path("runs")) -> "RunFolder":
        """The folder that `create` would make next; makes none."""
        return cls(next(path for path in numbered(parent, name) if not os.path.lexists(path)))

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Opens the folder of an earlier run.

        Raises:
            UserError: If there is none.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise UserError(f"there is no run folder {folder.path}")
        if not folder.config.is_file():
            raise UserError(f"{folder.path} is not a run folder: it holds no config.yaml")
        return folder

    def discard(self) -> None:
        """Removes a folder in which nothing has been trained yet, so that a mistake leaves no trace."""
        self.config.unlink(missing_ok=True)
        self.wandb_run_id.unlink(missing_ok=True)
        shutil.rmtree(self.path / "wandb", ignore_errors=True)
        self.release()
        with suppress(OSError):  # what holds something stays
            for path in self._made or [self.path]:
                path.rmdir()

    def claim(self) -> None:
        """Makes sure that no other process trains in the folder, from now until `release`.

        Raises:
            UserError: If one does.
        """
        self._claim = claim(self.path)

    def release(self) -> None:
        """Lets others go on in the folder, where this process had claimed it."""
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    @property
    def is_complete(self) -> bool:
        """Whether it holds a run that ended well."""
        return (self.path / "summary.json").is_file() and self.summary["status"] == "completed"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def wandb_run_id(self) -> Path:
        """The id of the run's counterpart on W&B, which a resumed run goes on with; there from the first moment."""
        return self.path / "wandb_run_id"

    @property
    def metrics(self) -> Path:
        """What was logged, a row per step or epoch."""
        return self.path / "metrics.csv"

    @property
    def test_predictions(self) -> Path:
        """What the final weights predicted for the test images, beside the targets."""
        return self.path / "test_predictions.npz"

    @property
    def checkpoints(self) -> Path:
        """Where ``best.ckpt`` and ``last.ckpt`` are."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """What a resumed run goes on from; the one before it is `previous_checkpoint`."""
        return self.checkpoints / "last.ckpt"

    @property
    def previous_checkpoint(self) -> Path:
        """The one before the last, for a last one that cannot be read."""
        return self.checkpoints / "previous.ckpt"

    @property
    def start_checkpoint(self) -> Path:
        """The weights with which the fine-tuning of the backbone began."""
        return self.checkpoints / "start.ckpt"

    @property
    def trained_checkpoint(self) -> Path:
        """The best single checkpoint, where ``best.ckpt`` holds an average of weights."""
        return self.checkpoints / "trained.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint with the best monitored metric.

        Raises:
            UserError: If the run ended before it wrote one.
        """
        path = self.checkpoints / "best.ckpt"
        if not path.is_file():
            raise UserError(f"{self.path} has no checkpoints/best.ckpt: its run ended before its first validation did")
        return path

    @property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds.

        Raises:
            UserError: If the run has not written it.
        """
        if not (self.path / "summary.json").is_file():
            raise UserError(f"{self.path} has no summary.json: its run is still going on, or was killed")
        values: dict[str, Any] = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        return values

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes ``summary.json`` whole or not at all; what is no number, as after a divergence, becomes null."""
        write_text(self.path / "summary.json", json.dumps(_finite(summary), indent=2, allow_nan=False) + "\n")


def holds_runs(folder: Path, *, depth: int = 3) -> bool:
    """Whether a folder is that of a run, or holds such, as ``runs/`` does.

    Args:
        folder: Any.
        depth: How far down to look: a trial's folder is ``runs/<sweep>-sweep-1/trials/0``.
    """
    if is_run(folder):
        return True
    with suppress(OSError), os.scandir(folder) as inside:
        below = [Path(entry) for entry in inside if entry.is_dir()]
        return depth > 0 and any(holds_runs(path, depth=depth - 1) for path in below)
    return False


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, which may only just have begun."""
    return (folder / CLAIM).exists() or ((folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir())


def open_folder(
    run_dir: str | None,
    *,
    command: str,
    what: str,
    recipe: str,
    name: str,
    part: str | tuple[str, ...],
    option: str = "--run_dir",
) -> Path:
    """Makes the folder, or finds that of an interrupted command with the same recipe.

    Several machines may do so at once, in a folder that they share.

    Args:
        run_dir: Where the user wants it; `None` for a new ``runs/<name>-<command>-<n>``.
        command: Such as ``crossval``; the recipe is kept as ``<command>.yaml``, by which the folder is known again.
        what: What is made, in words, such as ``cross-validation``.
        recipe: All options, as YAML.
        name: The configuration's name.
        part: How the folders of single runs begin, such as ``fold-``, or several such beginnings; a folder that holds
            only such is taken up.
        option: By which the user named the folder.

    Raises:
        UserError: If the folder holds something else, or what was made with other options.
    """
    if run_dir is None:
        made = RunFolder.create(None, name=f"{name}-{command}")
        write_text(made.path / f"{command}.yaml", recipe)
        made.release()
        return made.path
    folder = user_path(run_dir)
    kept = folder / f"{command}.yaml"
    try:
        make_folder(folder)
        ours = (*([part] if isinstance(part, str) else part), kept.name, f".{kept.name}", CLAIM)
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith(ours))
        if others and not kept.is_file():  # asked last: another machine may just have made it
            raise UserError(
                f"{option} {run_dir} is not empty: it holds {others[0]}; name another folder, which is to be its own"
            )
        same = write_new(kept, recipe) or kept.read_text(encoding="utf-8") == recipe
    except OSError as error:
        raise UserError(f"{option} {run_dir} cannot be made: {error.strerror or error}") from error
    if not same:
        raise UserError(f"{option} {run_dir} holds a {what} with other options; name another folder")
    return folder


def run_name(configs: Sequence[object]) -> str:
    """The name of a run: that of its first configuration; repeated from a run folder's own, that of the first run.

    Args:
        configs: The configuration files that were given, `None` for one that was not.
    """
    first = next((Path(str(config)) for config in configs if config is not None), Path("run"))
    return re.sub(r"-\d+$", "", first.absolute().parent.name) if first.name == "config.yaml" else first.stem


def _finite(value: Any) -> Any:  # noqa: ANN401 - anything that JSON holds
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
