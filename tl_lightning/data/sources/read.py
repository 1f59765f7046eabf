"""One name for where the images are: a folder, a table, or a set that is known by name."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tl_lightning.core.files import user_path
from tl_lightning.data.listing import Listing
from tl_lightning.data.samples import ProblemType, Samples
from tl_lightning.data.sources.columns import Columns, list_table
from tl_lightning.data.sources.elpv import read_elpv
from tl_lightning.data.sources.folder import FOLDER
from tl_lightning.data.sources.hub_sets import PREFIX as HUB
from tl_lightning.data.sources.hub_sets import read_hub
from tl_lightning.data.sources.paths import ENDINGS, check_no_columns, files_at, list_path
from tl_lightning.data.sources.torchvision_sets import PREFIX as TORCHVISION
from tl_lightning.data.sources.torchvision_sets import read_torchvision
from tl_lightning.data.targets import ClassNames, Unlabelled, make_samples
from tl_lightning.errors import UserError

__all__ = ["Columns", "Samples", "find_files", "list_source", "read_source"]


def read_source(
    source: str,
    *,
    problem_type: ProblemType | Mapping[str, ProblemType] = "multiclass",
    target: str | None = None,
    columns: Columns | None = None,
    separator: str = "|",
    classes: ClassNames | Mapping[str, ClassNames] | None = None,
    unlabelled: Unlabelled = "stop",
    evaluating: bool = False,
) -> Samples:
    """Lists the images and targets of a source; none is read, but for libraries' sets that are new here.

    Args:
        source: ``elpv``, the path of a table that ends in ``.csv`` or ``.parquet``, of a folder with one sub-folder per
            class, of a zip or tar archive of such, or of shards; else ``torchvision/NAME``, or ``datasets/NAME``,
            ``datasets/NAME:CONFIG`` or ``datasets/FOLDER`` for the library ``datasets``. A path that exists is always
            taken for one.
        problem_type: What is to be learned; of several targets each by its name, which is that of a column, or one of
            ``target``.
        target: What is to be learned, where the source has several targets (`elpv`: defect, level, type, probability).
        columns: Which columns of a table, or of a set of the library ``datasets``, say what.
        separator: Between the labels of one cell.
        classes: Order of the classes, as from a checkpoint; `None` leaves it to the source.
        unlabelled: What to do about samples without a target: ``stop`` or ``keep``.
        evaluating: Whether they are only scored, so that it may lack classes and a training split.

    Returns:
        The samples.

    Raises:
        UserError: If the source cannot be used, saying what to do.
    """
    several = None if isinstance(problem_type, str) else list(problem_type)
    if several is not None and target is not None:
        raise UserError(f"data.target {target!r} has no effect where several are learned: {', '.join(several)}")
    columns = columns or Columns()
    listing = list_source(
        source,
        target=several or target,
        columns=columns if several is None else replace(columns, label=several),
        separator=separator,
        may_be_empty=classes is not None,
        classes=() if classes is None or isinstance(classes, Mapping) else [str(name) for name in classes],
        evaluating=evaluating,
        blank_targets=several is not None or problem_type == "multilabel" or unlabelled == "keep",
    )
    if FOLDER in listing.targets and (several or problem_type in ("multilabel", "regression")):
        wanted = "several targets" if several else "a number" if problem_type == "regression" else "several labels"
        raise UserError(
            f"a folder says one class of each image, not {wanted}: name a .csv or .parquet table as data.source"
        )
    return make_samples(
        listing,
        problem_type=problem_type,
        classes=classes,
        separator=separator,
        unlabelled=unlabelled,
        evaluating=evaluating,
    )


def list_source(
    source: str,
    *,
    target: str | Sequence[str] | None = None,
    columns: Columns | None = None,
    separator: str = "|",
    may_be_empty: bool = True,
    classes: Collection[str] = (),
    evaluating: bool = False,
    blank_targets: bool = True,
) -> Listing:
    """What a source says, as text: enough where nothing is to be learned from it.

    Args:
        source: The name of a set, or the path of a table or folder; see `read_source`.
        target: What is to be learned, one or several, where the source has several targets without being a table.
        columns: Which columns of a table say what.
        separator: Between the labels of one cell.
        may_be_empty: Whether a folder may have class folders without images.
        classes: The names that classes may have, where they are known; see `read_folder`.
        evaluating: Whether nothing is to train, so that a folder may have ``test/`` without ``train/``.
        blank_targets: Whether the cell of a target may be blank.

    Raises:
        UserError: If the source cannot be listed.
    """
    columns = columns or Columns()
    by_name = _is_name(source)
    if source == "elpv":
        check_no_columns(source, columns)
        return read_elpv(targets=[target or "defect"] if isinstance(target, str | None) else target)
    if isinstance(target, str):
        raise UserError(f"data.target {target!r} is only for the source elpv, not for {source}; leave it out")
    if by_name and source.startswith(TORCHVISION):
        return list_table(read_torchvision(source.removeprefix(TORCHVISION)), columns, separator=separator)
    if by_name:
        table, columns = read_hub(source.removeprefix(HUB), columns)
        return list_table(table, columns, blank_targets=blank_targets, separator=separator)
    return list_path(
        source,
        columns=columns,
        separator=separator,
        may_be_empty=may_be_empty,
        classes=classes,
        evaluating=evaluating,
        blank_targets=blank_targets,
    )


def find_files(source: str, columns: Columns | None = None) -> list[Path]:
    """The images of a source, in its order, whatever it says of them: a table or folder needs no labels.

    Args:
        source: An image, a folder, an archive, a table, shards or the name of a set; see `read_source`.
        columns: Which columns of a table say what.

    Raises:
        UserError: If there are none.
    """
    columns = columns or Columns()
    if source == "elpv" or _is_name(source):
        return list_source(source, columns=columns).paths
    return files_at(source, columns)


def _is_name(source: str) -> bool:
    """Whether a source is the name of a library's set rather than a path."""
    named = source.startswith((TORCHVISION, HUB)) and not source.lower().endswith(ENDINGS)
    return named and not user_path(source).exists()
