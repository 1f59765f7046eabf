"""What Label Studio exports as JSON, JSON-MIN and CSV."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tl_lightning.core.console import console
from tl_lightning.data.images.formats import SUFFIXES, suffix_of
from tl_lightning.data.sources.annotations.locating import locate
from tl_lightning.data.sources.columns import Table
from tl_lightning.errors import UserError

# What it adds to each row of JSON-MIN and CSV.
OWN = frozenset("id annotator annotation_id created_at updated_at lead_time".split())
MARKS = frozenset(("annotation_id", "lead_time"))  # of which both are in every such row


@dataclass
class Task:
    """An image with what annotators chose.

    Attributes:
        stated: The image as the export names it.
        data: What else is known of it.
        answers: The choices of each annotator, by the name of what was asked.
    """

    stated: str
    data: dict[str, Any]
    answers: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)


def is_tasks(content: object) -> bool:
    """Whether it is what Label Studio calls JSON."""
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and (
        isinstance(content[0].get("data"), dict) and bool({"annotations", "completions"} & content[0].keys())
    )  # fmt: skip


def is_rows(content: object) -> bool:
    """Whether it is JSON-MIN, or such a table by the names of its columns."""
    first = content[0] if isinstance(content, list) and content and isinstance(content[0], dict) else content
    return isinstance(first, Mapping | set) and set(first) >= MARKS


def read_tasks(content: Sequence[dict[str, Any]], root: Path, source: str, image: str) -> Table:
    """Makes a table of the tasks of a JSON export; see `table_of`.

    Args:
        content: What the file holds.
        root: The folder that it lies in.
        source: What messages call it.
        image: The column of the image, where the tasks have one of this name.
    """
    tasks = []
    for each in content:
        data = each["data"]
        given = each.get("annotations", each.get("completions")) or []
        given = [one for one in given if not (one.get("was_cancelled") or one.get("skipped"))]
        task = Task(_stated(data, image, source), data)
        for annotation in [one for one in given if one.get("ground_truth")] or given:
            asked: dict[str, tuple[str, ...]] = {}
            for result in annotation.get("result") or []:
                if result.get("type") == "choices":
                    asked[result["from_name"]] = tuple(sorted(map(str, result["value"]["choices"])))
                elif result.get("type", "").endswith("labels"):
                    raise UserError(
                        f"data.source {source} holds {result['type']}, which are regions of images; only choices for "
                        "a whole image are read"
                    )
            for name, choices in asked.items():
                task.answers.setdefault(name, []).append(choices)
        tasks.append(task)
    return table_of(tasks, root, source)


def read_rows(rows: Sequence[Mapping[str, Any]], root: Path, source: str, image: str) -> Table:
    """Makes a table of JSON-MIN or CSV, where each annotation has a row of its own; see `read_tasks`."""
    tasks: dict[tuple[str, str], Task] = {}
    for row in rows:
        data = {name: value for name, value in row.items() if name not in OWN}
        stated = _stated(data, image, source)
        asked = {name: choices for name, value in data.items() if (choices := _choices(value)) is not None}
        task = tasks.setdefault((str(row.get("id")), stated), Task(stated, data))
        for name, choices in asked.items():
            if data[name] != stated:
                task.answers.setdefault(name, []).append(choices)
    return table_of(list(tasks.values()), root, source)


def table_of(tasks: Sequence[Task], root: Path, source: str) -> Table:
    """One row for each image: what most of its annotators chose.

    What was skipped, was not annotated yet or has no majority is left out, and that is said.

    Raises:
        UserError: If nothing is left, or an image is missing.
    """
    names = list(dict.fromkeys(name for task in tasks for name in task.answers))
    chosen = [{name: _majority(task.answers.get(name, [])) for name in names} for task in tasks]
    kept = [row for row, answers in enumerate(chosen) if any(answers.values())]
    undecided = sum(not any(chosen[row].values()) and bool(task.answers) for row, task in enumerate(tasks))
    if undone := len(tasks) - len(kept) - undecided:
        console.print(f"{source}: {undone} of {len(tasks)} tasks were skipped or not annotated: left out")
    if undecided:
        console.print(f"{source}: the annotators of {undecided} of {len(tasks)} tasks do not agree: left out")
    if not kept:
        raise UserError(f"data.source {source}: no task has choices for its image; annotate some first")
    others = dict.fromkeys(name for row in kept for name in tasks[row].data if name not in names)
    columns: dict[str, Sequence[Any]] = {name: [tasks[row].data.get(name) for row in kept] for name in others}
    columns |= {name: [list(chosen[row][name] or ()) for row in kept] for name in names}
    stated = [tasks[row].stated for row in kept]
    return Table(
        name=source,
        columns=columns,
        place=lambda index: f"the image {stated[index]} of {source}",
        paths=locate(stated, root, source),
        classes={name: sorted({label for row in kept for label in chosen[row][name] or ()}) for name in names},
    )


def _majority(answers: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    counted = Counter(answers).most_common(2)
    if not counted or (len(counted) == 2 and counted[0][1] == counted[1][1]):
        return None
    return counted[0][0]


def _choices(value: object) -> tuple[str, ...] | None:
    """What was chosen, as a text, a list, or ``{"choices": [...]}``, in JSON or not; `None` for anything else."""
    if isinstance(value, str) and value.startswith('{"choices"'):
        value = json.loads(value)
    if isinstance(value, dict):
        value = value.get("choices")
    if isinstance(value, str):
        return (value,) if value else None
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return tuple(sorted(value))
    return None


def _stated(data: Mapping[str, Any], image: str, source: str) -> str:
    if isinstance(data.get(image), str):
        return str(data[image])
    found = [value for value in data.values() if isinstance(value, str) and suffix_of(value) in SUFFIXES]
    if len(found) != 1:
        raise UserError(
            f"data.source {source}: a task has {len(found)} images; say which as data.image_column, one of "
            f"{', '.join(data)}"
        )
    return found[0]
