"""What a run was trained on, kept in its checkpoints: no later evaluation scores an image of it as a new one."""

import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_lightning.core.console import console
from tl_lightning.core.files import user_path
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.data.base import TransferDataModule
from tl_lightning.data.contents import contents, places
from tl_lightning.data.samples import name_some
from tl_lightning.errors import UserError, shown

OnSeen = Literal["stop", "skip", "warn"]
WORDS = {"train": "trained on", "val": "chose its weights by"}


def record_of(data: TransferDataModule, targets: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a checkpoint keeps of the samples, as plain data and tensors: 16 bytes for each, and the training targets.

    Args:
        data: Set up.
        targets: Those of the training samples, by the name of each head.
    """
    of_all, where = contents(data.store), places(data.samples.paths)
    rows = _rows(data)
    distinct = {head: torch.unique(labels, dim=0, return_counts=True) for head, labels in targets.items()}
    return {
        "source": data.source,
        "drawn_digest": data.drawn_digest,
        "contents": {name: torch.from_numpy(of_all[each]) for name, each in rows.items()},
        "places": {name: torch.from_numpy(where[each]) for name, each in rows.items()},
        # Any baseline follows from how often each target occurs.
        "targets": {head: {"values": values, "counts": counts} for head, (values, counts) in distinct.items()},
    }


def drawn_digest(checkpoint: Mapping[str, Any], *, on_leak: object) -> str | None:
    """The digest of the run's own split before copies were moved; `None` where an earlier version does not say.

    Args:
        checkpoint: Its content.
        on_leak: What is done about copies; earlier versions only knew the digest after that.
    """
    run = checkpoint.get("run", {})
    digest: str | None = run.get("trained_on", {}).get("drawn_digest")
    return run.get("split_digest") if digest is None and on_leak != "move" else digest


def training_targets(checkpoint: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The targets that the run was trained on, by the name of each head, in no order; `None` as for `drawn_digest`.

    Args:
        checkpoint: Its content.
    """
    record = checkpoint.get("run", {}).get("trained_on")
    if record is None:
        return None
    return {head: kept["values"].repeat_interleave(kept["counts"], dim=0) for head, kept in record["targets"].items()}


def check_same_contents(began: Mapping[str, Any], now: Mapping[str, Any], data: TransferDataModule) -> None:
    """Makes sure that the samples are what they were when a run began.

    Args:
        began: What `record_of` gave then, of the same splits.
        now: What it gives now.
        data: What it was given.

    Raises:
        UserError: If some show something else now.
    """
    changed = []
    for name, kept in began["contents"].items():
        rows = _rows(data)[name]
        same_number = len(rows) == len(kept)  # else one more cannot be read, or one less
        differ = (kept != now["contents"][name]).numpy() if same_number else np.ones(len(rows), dtype=np.bool_)
        changed += [shown(data.samples.paths[row]) for row in rows[differ]]
    if changed:
        named = name_some(changed, most=3)
        all_of_them = f"{sum(map(len, _rows(data).values())):,} {data.noun} of {data.source}"
        raise UserError(f"{len(changed):,} of the {all_of_them} changed since the run began: {named}")


def _rows(data: TransferDataModule) -> dict[str, NDArray[np.int64]]:
    """The splits, with all samples that train, those without a label too."""
    return {**data.splits, "train": np.union1d(data.splits["train"], data.training_rows)}


def check_unseen(
    data: TransferDataModule,
    part: str,
    *,
    checkpoint: Mapping[str, Any],
    own: bool,
    on_seen: OnSeen = "stop",
    folder: RunFolder | None = None,
) -> None:
    """Makes sure that what is scored is the run's own split, or nothing that it trained on or chose its weights by.

    A sample is known again by its content, wherever it lies and whatever it is called, and by its place, whatever has
    been done to it there.

    Args:
        data: Set up, in the splits to score.
        part: The split to score: ``val`` or ``test``.
        checkpoint: What is scored, as loaded.
        own: Whether the splits were drawn as the run's own.
        on_seen: What to do about such samples: ``stop``, ``skip`` them, or ``warn`` and score them.
        folder: The run's folder, for what checkpoints of earlier versions do not say.

    Raises:
        UserError: If some were seen, or nothing is left.
    """
    record = checkpoint.get("run", {}).get("trained_on")
    if record is None:
        if folder is not None:
            check_same_split(folder, data)
        if not own:
            console.print(
                "note       the checkpoint is of an earlier version, which did not keep what it was trained on: make "
                f"sure that none of these {data.noun} was",
                style="yellow",
            )
        return
    rows = data.splits[part]
    what, where = contents(data.store)[rows], places(data.samples.paths)[rows]
    kept = {name: record[name][part].numpy() for name in ("contents", "places")}
    if own and np.array_equal(what, kept["contents"]):
        return
    same = own and len(what) == len(kept["contents"])
    if own:
        console.print(f"note       {data.noun} of {data.source} have changed since the run was trained", style="yellow")
    fresh = what != kept["contents"] if same else np.ones(len(rows), dtype=np.bool_)  # the others are the run's own
    has_place = where != 0
    seen = {
        name: fresh & (np.isin(what, record["contents"][name]) | (has_place & np.isin(where, record["places"][name])))
        for name in WORDS
        if not (own and name == part)
    }
    _settle(data, rows, seen, on_seen)


def _settle(
    data: TransferDataModule, rows: NDArray[np.int64], seen: Mapping[str, NDArray[np.bool_]], on_seen: OnSeen
) -> None:
    known = np.logical_or.reduce(list(seen.values()))
    if not known.any():
        return
    counted = " and ".join(f"{WORDS[name]} {int(those.sum()):,}" for name, those in seen.items() if those.any())
    named = name_some([shown(data.samples.paths[row]) for row in rows[known]], most=3)
    found = f"of the {len(rows):,} {data.noun} to score, the run {counted}: {named}"
    if on_seen == "stop":
        raise UserError(
            f"{found}; they say nothing about new {data.noun}: give others, or leave them out with --on_seen skip"
        )
    if on_seen == "warn":
        console.print(f"caution    {found}; the score says little about new {data.noun}", style="yellow")
        return
    if known.all():
        raise UserError(f"{found}; nothing new is left to score")
    data.leave_out(rows[known].tolist())
    console.print(f"note       {found}; they are left out", style="yellow")


def check_same_split(folder: RunFolder, data: TransferDataModule) -> None:
    """The same for a run of an earlier version, of which no more is known than the names of its samples.

    Args:
        folder: The run's.
        data: As for `check_unseen`.

    Raises:
        UserError: If the source is the run's, and its split another.
    """
    trained = folder.summary["data"]
    if _place(data.source) == _place(trained["source"]) and data.split_digest != trained["split_digest"]:
        raise UserError(
            f"the {data.noun} or the split of {data.source} are not those that {folder.path} was trained on: "
            f"drawn anew, it would score training {data.noun} as new ones; give {data.noun} of their own with "
            "--data.source"
        )


def _place(source: str) -> str:
    """Where a source lies, however that is spelled; the name of one that is known by name is only itself."""
    return os.path.realpath(user_path(source))
