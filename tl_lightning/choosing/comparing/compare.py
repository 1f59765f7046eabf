"""``tl compare``: strategies side by side on the same images, and whether transfer helped."""

from collections.abc import Sequence
from typing import Any

from tl_lightning.choosing.comparing.growth import grow
from tl_lightning.choosing.comparing.outcome import judge
from tl_lightning.choosing.comparing.plan import check_arguments, make_plan
from tl_lightning.choosing.comparing.report import show, write
from tl_lightning.choosing.comparing.results import METRICS, choose_measure
from tl_lightning.choosing.comparing.runs import make_runs
from tl_lightning.choosing.comparing.strategies import (
    DEFAULT_STRATEGIES,
    list_choices,
    parse_fractions,
    parse_strategies,
)
from tl_lightning.core.claims import claimed
from tl_lightning.core.console import console
from tl_lightning.core.files import user_path
from tl_lightning.core.options import OptionParser
from tl_lightning.core.run_folder import open_folder

FAILED, NEGATIVE = 1, 3  # exit codes


def compare_command(args: list[str]) -> int:
    """``tl compare``: trains every strategy on the same images, and says whether transfer helped.

    Args:
        args: Options of its own, and everything that ``tl fit`` takes.

    Returns:
        The exit code: 3 with ``--fail_on_negative_transfer`` after negative transfer; else 1 where a run failed, or 0.

    Raises:
        UserError: If an option is wrong, or something that ``tl fit`` would say.
    """
    options, rest = option_parser().parse_known_args(args)
    summary = compare(
        rest,
        run_dir=options.run_dir,
        strategies=options.strategies,
        seeds=options.seeds,
        reference=options.reference,
        fractions=options.fractions,
        more=options.more,
        metric=options.metric,
    )
    if options.fail_on_negative_transfer and (summary["verdict"] or {}).get("kind") == "negative":
        return NEGATIVE
    return FAILED if any(run["status"] != "completed" for run in summary["runs"]) else 0


def option_parser() -> OptionParser:
    """Reads the options that ``tl compare`` has beside those of ``tl fit``."""
    parser = OptionParser(
        "compare",
        "Trains strategies on the same images, with several seeds, and says with an interval if transfer helped. "
        "Takes every option of tl fit too (tl fit --help). Interrupted, the same command with its --run_dir goes on "
        "with what is missing; with more seeds, fractions or strategies it adds their runs.",
    )
    parser.add_argument(
        "--strategies",
        default=DEFAULT_STRATEGIES,
        help=f"with commas: {list_choices()} (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="runs of each that differ by chance (default: %(default)s)"
    )
    parser.add_argument(
        "--reference", default="scratch", help="what the others are compared with (default: %(default)s)"
    )
    parser.add_argument("--fractions", help="shares of the labels for learning curves, such as 0.05,0.1,0.25,0.5,1")
    parser.add_argument("--more", type=int, default=200, help="labels to forecast the gain of (default: %(default)s)")
    parser.add_argument("--metric", choices=METRICS, help="of classes: what is compared (default: accuracy)")
    parser.add_argument(
        "--fail_on_negative_transfer", action="store_true", help="exit with code 3 where the verdict is negative"
    )
    parser.add_argument("--run_dir", help="the folder for the runs; by default a new runs/<config>-compare-<n>")
    return parser


def compare(
    args: Sequence[str],
    *,
    run_dir: str | None = None,
    strategies: str = DEFAULT_STRATEGIES,
    seeds: int = 3,
    reference: str = "scratch",
    fractions: str | None = None,
    more: int = 200,
    metric: str | None = None,
) -> dict[str, Any]:
    """Makes the runs that are missing, compares all, and writes what came out into the folder.

    Args:
        args: Command-line arguments of ``tl fit``.
        run_dir: The folder for the runs; `None` for a new one.
        strategies: With commas; see `parse_strategies`.
        seeds: Runs of each strategy that differ by chance alone, 1 or more; the split stays.
        reference: The strategy that the others are compared with.
        fractions: Shares of the labels, with commas, for learning curves; `None` for none.
        more: Labels to forecast the gain of, 1 or more; matters with ``fractions``.
        metric: For classes: accuracy, macro_f1 or balanced_accuracy; `None` for what is usual for the problem type.

    Returns:
        What the folder's ``summary.json`` holds: ``runs`` (each with its ``status``, and its ``error`` where it
        failed), ``strategies`` (a row each, with metrics and differences), ``verdict`` (``kind`` helped, no_evidence or
        negative, or, where the reference transfers, too, better, no_evidence or worse; and ``text``; `None` where runs
        that it needs failed) and ``curves``.

    Raises:
        UserError: If an argument is wrong, or the folder holds something else.
    """
    chosen, shares = parse_strategies(strategies, reference=reference), parse_fractions(fractions)
    check_arguments(args, shares, more=more)
    plan = make_plan(args, chosen, shares, seeds=seeds, reference=reference)
    measure = choose_measure(plan, metric)
    plan.check_made(None if run_dir is None else user_path(run_dir))
    folder = open_folder(
        run_dir,
        command="compare",
        what="comparison",
        recipe=plan.recipe,
        name=plan.base.run_name,
        part=tuple(f"{strategy.name}-" for strategy in chosen),
    )
    with claimed(folder):
        try:
            made = make_runs(plan, args, folder, measure)
        except KeyboardInterrupt:
            console.print(f"interrupted; the same tl compare with --run_dir {folder} goes on with what is missing")
            raise
        outcome = judge(made, plan.tested, measure, reference=reference, transferring=plan.transferring)
        growth = grow(outcome, measure, more=more)
        show(outcome, growth, measure)
        return write(outcome, growth, measure, folder)
