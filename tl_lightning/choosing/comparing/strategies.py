"""What a comparison runs: strategies, shares of the labels and seeds, as plain data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tl_lightning.core.packaged import find, hint
from tl_lightning.errors import UserError, nearest
from tl_lightning.finetuning.phases import PRESETS

DEFAULT_STRATEGIES = "scratch,feature_extraction,partial,lp_ft,full"
CONFIGURED = "config"  # the phases that the configuration itself says


@dataclass(frozen=True)
class Strategy:
    """A way to train, with a name.

    Attributes:
        name: What its runs and its row in tables are called.
        options: Options of ``tl fit``, to stand behind those that all strategies share.
    """

    name: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One run of a comparison.

    Attributes:
        strategy: How it trains.
        fraction: The share of the labels that it learns from, above 0 to 1; `None` for what the configuration says.
        seed: The run's ``seed_everything``.
    """

    strategy: Strategy
    fraction: float | None
    seed: int

    @property
    def name(self) -> str:
        """What its folder is called; that of all labels has no share in it, so that shares can be added later."""
        share = "" if self.fraction in (None, 1) else f"-{self.fraction:g}"
        return f"{self.strategy.name}{share}-seed{self.seed}"

    @property
    def options(self) -> list[str]:
        """Options of ``tl fit``, to stand behind those that all runs share."""
        share = [] if self.fraction is None else ["--data.labelled_fraction", f"{self.fraction:g}"]
        return [*self.strategy.options, *share, "--seed_everything", str(self.seed)]


def parse_strategies(text: str, *, reference: str) -> list[Strategy]:
    """Reads what stands behind ``--strategies``.

    Args:
        text: With commas: presets of phases, ``config``, ``NAME=FILE.yaml`` or ``FILE.yaml``.
        reference: The one that all others are compared with.

    Raises:
        UserError: If a strategy is unknown, stands there twice, or has no file; if the reference is not among them, or
            nothing else is.
    """
    strategies = [_strategy(word.strip()) for word in text.split(",") if word.strip()]
    names = [strategy.name for strategy in strategies]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"--strategies: {twice[0]} stands there twice; leave one out, or give it a name: NAME=FILE.yaml"
        )
    if reference not in names:
        raise UserError(
            f"--reference {reference} is not among the strategies{nearest(reference, names)} "
            f"(--strategies: {', '.join(names) or 'none'}); add it, or name one of them"
        )
    if len(names) < 2:
        raise UserError(
            f"--strategies names only {names[0]}; give two or more, for there is nothing to compare it with"
        )
    return strategies


def _strategy(word: str) -> Strategy:
    if word in PRESETS:
        # From random weights there is nothing to forget, and asked for it would be a mistake.
        nothing = ("--forgetting.source", "null") if PRESETS[word].model.get("weights") == "none" else ()
        return Strategy(word, ("--phases", word, *nothing))
    if word == CONFIGURED:
        return Strategy(word)
    name, is_named, file = word.rpartition("=")
    if not is_named and Path(word).suffix not in (".yaml", ".yml"):
        known = [*PRESETS, CONFIGURED]
        raise UserError(f"--strategies: {word!r} is no strategy{nearest(word, known)} (valid: {list_choices()})")
    found = find("configs", file)
    if found is None:
        raise UserError(f"--strategies {word}: there is no file {file}{hint('configs', file)}")
    name = name.strip() or Path(file).stem
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise UserError(f"--strategies {word}: {name!r} cannot be a name; use letters, digits, and _ . + -")
    if name in PRESETS or name == CONFIGURED:
        raise UserError(
            f"--strategies {word}: {name} is a strategy of its own; give the file another name: NAME={file}"
        )
    return Strategy(name, ("--config", found))


def parse_fractions(text: str | None) -> list[float | None]:
    """Reads what stands behind ``--fractions``.

    Args:
        text: Shares of the labels, with commas; `None` for the configuration's own.

    Returns:
        The shares, ascending, or only `None`.

    Raises:
        UserError: If one is no number, out of range, or stands there twice.
    """
    if text is None:
        return [None]
    fractions: list[float] = []
    for word in text.split(","):
        try:
            fraction = float(f"{float(word):g}")  # as it stands in the name of a folder
        except ValueError:
            raise UserError(f"--fractions: {word.strip()!r} is no number; give shares such as 0.1,0.5,1") from None
        if not 0 < fraction <= 1:
            raise UserError(f"--fractions: {word.strip()} must be above 0 and at most 1, such as 0.25 for a quarter")
        if fraction in fractions:
            raise UserError(f"--fractions: {fraction:g} stands there twice; leave one out")
        fractions.append(fraction)
    return [*sorted(fractions)]


def list_choices() -> str:
    """What can stand behind ``--strategies``, in words."""
    return f"{', '.join(PRESETS)}, {CONFIGURED} (the configuration's own phases), or NAME=FILE.yaml (overriding keys)"


def list_jobs(
    strategies: Sequence[Strategy], fractions: Sequence[float | None], *, seeds: int, first_seed: int
) -> list[Job]:
    """All runs of a comparison, in the order in which they are made: seed by seed, so that early ones can be compared.

    Args:
        strategies: How.
        fractions: Shares of the labels, with commas.
        seeds: How many runs differ by chance alone.
        first_seed: The others follow it.

    Raises:
        UserError: If there are fewer seeds than 1, or two runs would have one folder.
    """
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}; it must be 1 or more")
    every = product(range(first_seed, first_seed + seeds), fractions, strategies)
    jobs = [Job(strategy, fraction, seed) for seed, fraction, strategy in every]
    names = [job.name for job in jobs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two strategies would both write {name}; give one another name: NAME=FILE.yaml")
    return jobs
