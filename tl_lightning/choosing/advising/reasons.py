"""A setting with its reason, as `tl advise` and `tl init` write them; importing it costs nothing."""

from dataclasses import dataclass
from typing import Any

OWN = "yours"


@dataclass(frozen=True)
class Reason:
    """One setting and why.

    Attributes:
        setting: The dotted key.
        value: As YAML has it.
        why: In words.
        number: What it rests on; empty where on nothing measured.
        source: The rule that it comes from, or ``yours``.
    """

    setting: str
    value: Any
    why: str
    number: str = ""
    source: str = ""
