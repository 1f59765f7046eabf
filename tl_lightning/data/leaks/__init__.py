"""Leaks: the same image in two splits, or under two labels."""

from tl_lightning.data.leaks.duplicates import find_duplicates
from tl_lightning.data.leaks.fingerprints import Fingerprints, take_fingerprints
from tl_lightning.data.leaks.found_before import cached_duplicates
from tl_lightning.data.leaks.groups import KINDS, Duplicate, Kind, groups_of
from tl_lightning.data.leaks.policy import OnLeak, move_leaks, settle_leaks
from tl_lightning.data.leaks.report import LeakReport, report_leaks

__all__ = [
    "KINDS",
    "Duplicate",
    "Fingerprints",
    "Kind",
    "LeakReport",
    "OnLeak",
    "cached_duplicates",
    "find_duplicates",
    "groups_of",
    "move_leaks",
    "report_leaks",
    "settle_leaks",
    "take_fingerprints",
]
