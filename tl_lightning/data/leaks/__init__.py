"""Leaks: the same picture in two splits, or under two labels."""

from tl_lightning.data.leaks.duplicates import find_duplicates
from tl_lightning.data.leaks.fingerprints import Fingerprints, take_fingerprints
from tl_lightning.data.leaks.groups import KINDS, Duplicate, Kind, groups_of
from tl_lightning.data.leaks.kept import kept_duplicates
from tl_lightning.data.leaks.policy import OnLeak, move_leaks, settle_leaks
from tl_lightning.data.leaks.report import LeakReport, report_leaks

__all__ = [
    "KINDS",
    "Duplicate",
    "Fingerprints",
    "Kind",
    "LeakReport",
    "OnLeak",
    "find_duplicates",
    "groups_of",
    "kept_duplicates",
    "move_leaks",
    "report_leaks",
    "settle_leaks",
    "take_fingerprints",
]
