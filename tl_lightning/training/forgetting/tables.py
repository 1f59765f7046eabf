"""What the meter found, for people."""

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from tl_lightning.core.console import new_table


def forgetting_table(record: Mapping[str, Any], *, title: str) -> Table:
    """Shows how far the weights of each stage have moved, and how alike what it hands on still is.

    Args:
        record: What `ForgettingMeter.measure` gave.
        title: Above the table.
    """
    table = new_table(title, "stage", numbers=["weights moved"])
    if record["images"]:
        table.add_column("features alike (CKA)", justify="right")
    for row in record["stages"]:
        cells = [row["stage"], f"{100 * row['weight_distance']:.2f} %"]
        if record["images"]:
            cells.append("" if row["cka"] is None else f"{row['cka']:.3f}")
        table.add_row(*cells, style="dim" if not row["weight_distance"] and row["cka"] in (1.0, None) else None)
    return table


def in_a_sentence(record: Mapping[str, Any]) -> str:
    """Says what became of the source task; empty where no source was given.

    Args:
        record: What `ForgettingMeter.measure` gave.
    """
    if "source" not in record:
        return ""
    source = record["source"]
    known = [row for row in record["stages"] if row["cka"] is not None and math.isfinite(row["cka"])]
    least = min(known, key=lambda row: row["cka"], default=None)
    where = "" if least is None or least["cka"] == 1 else f"features differ most after {least['stage']}; "
    before, after = (f"{100 * source[when]:.1f} %" for when in ("before", "after"))
    of = f"of {source['images']:,} source images right"
    if source["before"] == source["after"]:
        return f"{where}the source head still gets {after} {of}"
    return f"{where}the source head would now get {after} {of} instead of {before}"
