"""Linear heads on cached features, solved instead of trained; pure functions of features and labels."""

from tl_lightning.probe.features import Features, Rows
from tl_lightning.probe.heads import (
    HeadSolution,
    solve_levels,
    solve_logistic,
    solve_ridge,
    solve_ridge_labels,
    solve_ridge_numbers,
)
from tl_lightning.probe.logistic import STRENGTHS, LogisticPath, logistic_path
from tl_lightning.probe.out_of_fold import OutOfFold, cross_validate, left_out, out_of_fold, ridge_out_of_fold
from tl_lightning.probe.ridge import (
    RIDGE_STRENGTHS,
    RidgeClassifier,
    RidgePath,
    ridge_classifier,
    ridge_labels,
    ridge_path,
)
from tl_lightning.probe.scores import PathScores, choose, path_until_it_rises, score_path

__all__ = [
    "RIDGE_STRENGTHS",
    "STRENGTHS",
    "Features",
    "HeadSolution",
    "LogisticPath",
    "OutOfFold",
    "PathScores",
    "RidgeClassifier",
    "RidgePath",
    "Rows",
    "choose",
    "cross_validate",
    "left_out",
    "logistic_path",
    "out_of_fold",
    "path_until_it_rises",
    "ridge_classifier",
    "ridge_labels",
    "ridge_out_of_fold",
    "ridge_path",
    "score_path",
    "solve_levels",
    "solve_logistic",
    "solve_ridge",
    "solve_ridge_labels",
    "solve_ridge_numbers",
]
