"""How much each parameter of a sweep mattered."""

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tl_lightning.running.sweeping.parameters import Choice, Parameter, Range
from tl_lightning.running.sweeping.showing import encoded, is_log, is_scored, number_of, varied
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import Trial

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

FEWEST = 4  # completed trials; of fewer, which parameter it was cannot be told
GOOD = 5  # trials that should count as good, as PED-ANOVA's authors ask
SHARE = 0.1  # of all, where that is more


def importance(sweep: SweepFile, trials: Sequence[Trial]) -> dict[str, float]:
    """The share of each varied parameter in what makes a trial a good one.

    By PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023; Optuna's own code): how much the values of the good trials
    differ from the values of all. It was taken because it needs no scikit-learn, which fANOVA fits its forests by; it
    is computed at once; it asks only which trials are good, so that one diverged does not rule; and it compares with
    the values that were really drawn, of which a Bayesian search draws more where it is good. Trials that were stopped
    early count as well, by the score they had: leaving out the weak ones would leave nothing to be compared with.

    Args:
        sweep: What may vary.
        trials: In any state.

    Returns:
        By key, the largest first, adding up to 1; empty with fewer than 4 completed trials, or where all scores or all
        values are the same.
    """
    scored = [trial for trial in trials if trial.state in ("completed", "stopped") and is_scored(trial)]
    completed = [trial for trial in scored if trial.state == "completed"]
    if len(completed) < FEWEST or len({trial.score for trial in scored}) < 2:
        return {}
    keys = [key for key in varied(sweep) if all(key in trial.values for trial in scored)]
    keys = [key for key in keys if len({encoded(trial.values[key]) for trial in scored}) > 1]
    return _evaluated(sweep, scored, keys) if keys else {}


def _evaluated(sweep: SweepFile, scored: Sequence[Trial], keys: Sequence[str]) -> dict[str, float]:
    import optuna

    spaces = {key: _space(sweep.parameters[key], [trial.values[key] for trial in scored]) for key in keys}
    study = _study(sweep)
    for trial in scored:
        params = {key: value(trial.values[key]) for key, (_, value) in spaces.items()}
        distributions = {key: distribution for key, (distribution, _) in spaces.items()}
        frozen = optuna.trial.create_trial(params=params, distributions=distributions, value=trial.score)
        study.add_trial(frozen)
    good = min(max(SHARE, GOOD / len(scored)), 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of equal scores: what it then gives is handled below
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=good)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    whole = sum(shares.values())
    return {key: float(share) for key, share in shares.items()} if math.isfinite(whole) and whole > 0 else {}


def _study(sweep: SweepFile) -> "optuna.Study":
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)  # it would say that it has made a study
    try:
        return optuna.create_study(direction=sweep.goal)
    finally:
        optuna.logging.set_verbosity(before)


def _space(kind: Parameter, values: Sequence[Any]) -> "tuple[BaseDistribution, Callable[[Any], Any]]":
    """Where the values of a parameter lie, and how one of them is written there."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    numbers = [number for value in values if (number := number_of(value)) is not None]
    if isinstance(kind, Choice) or len(numbers) < len(values):
        return CategoricalDistribution(sorted({encoded(value) for value in values})), encoded
    low, high = (kind.low, kind.high) if isinstance(kind, Range) else (numbers[0], numbers[0])
    low, high = min(low, *numbers), max(high, *numbers)
    return FloatDistribution(low, high, log=is_log(kind) and low > 0), float
