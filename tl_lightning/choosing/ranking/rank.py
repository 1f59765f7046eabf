"""``tl rank``: which pretrained backbone suits your images, from one forward pass of each."""

from collections.abc import Sequence

from rich.measure import Measurement

from tl_lightning.choosing.ranking.assess import Assessment, assess
from tl_lightning.choosing.ranking.candidates import Candidate, available, check, configured, named
from tl_lightning.choosing.ranking.measure import Measured, measure
from tl_lightning.choosing.ranking.rank_report import Ranking, advice, page, rank_table, write_metrics
from tl_lightning.core.console import console
from tl_lightning.core.files import write_text
from tl_lightning.core.options import OptionParser, writable
from tl_lightning.errors import UserError
from tl_lightning.experiment.preamble import refuse_run_dir
from tl_lightning.tasks.objectives import OBJECTIVES

LONGEST = 500  # of a line in a log file


def rank_command(args: list[str]) -> None:
    """``tl rank``: compares backbones by what a linear head makes of their features.

    Args:
        args: ``--backbones``, ``--output NAME`` and everything that ``tl fit`` takes.

    Raises:
        UserError: If an option is wrong, nothing can be ranked, or something that ``tl fit`` would say.
    """
    parser = OptionParser(
        "rank",
        "Ranks pretrained backbones on your images: one forward pass of each over the training and validation "
        "images, cached for later runs, then a linear head, solved and cross-validated, and transferability scores. "
        "Takes every option of tl fit too (tl fit --help).",
    )
    parser.add_argument(
        "--backbones",
        metavar="A,B=WEIGHTS,...",
        help="timm/NAME, each with =WEIGHTS as --model.weights; default: what is installed, or can be fetched of a "
        "short list",
    )
    parser.add_argument("--output", default="rank", metavar="NAME", help="writes NAME.csv and NAME.html")
    options, rest = parser.parse_known_args(args)
    table, html = (writable(options.output, suffix=suffix) for suffix in (".csv", ".html"))
    refuse_run_dir(rest, "rank")
    with console.status("looking for backbones"):
        candidates, asked_for = _candidates(options.backbones, rest)
    ranking = _ranking(candidates, asked_for, rest)
    shown = rank_table(ranking)
    if not console.is_terminal:  # a log file has lines of any length; on a terminal the table folds
        shown.width = Measurement.get(console, console.options.update(max_width=LONGEST), shown).maximum
    console.print(shown)
    console.print(advice(ranking))
    write_metrics(ranking, table)
    write_text(html, page(ranking))
    console.print(f"metrics in {table}, page in {html}")


def _candidates(backbones: str | None, args: Sequence[str]) -> tuple[list[Candidate], set[Candidate]]:
    """What is ranked, and which of these the user asked for: without those there is no table."""
    own = configured(args)
    if own is not None:
        check(own)
    wanted, said = (named(backbones), []) if backbones is not None else available()
    asked_for = {candidate for candidate in [own, *(wanted if backbones is not None else [])] if candidate is not None}
    for line in said:
        console.print(line, style="yellow")
    together = wanted if own is None or own in wanted else [*wanted, own]
    if own is not None and backbones is None:
        together = [own, *(candidate for candidate in together if candidate != own)]
    if not together:
        raise UserError(
            "there is no backbone to rank: no known package of weights is installed, and none can be fetched; name "
            "some with --backbones timm/NAME=WEIGHTS"
        )
    return together, asked_for


def _ranking(candidates: Sequence[Candidate], asked_for: set[Candidate], args: Sequence[str]) -> Ranking:
    """All scores of all candidates that can be had, and of the first one's architecture with random weights."""
    found: list[Assessment] = []
    first: Measured | None = None
    for candidate in candidates:
        try:
            measured = measure(args, candidate)
        except UserError as error:
            if candidate in asked_for:
                raise
            console.print(f"left out   {candidate.name}: {error}", style="yellow")
            continue
        if first is None:
            first = measured
            console.print(measured.line)
        found.append(_assessed(measured))
    if first is None:
        raise UserError("none of the backbones can be ranked on these images; name others with --backbones")
    chance = first.candidate.control
    control = next((each for each in found if each.candidate == chance), None) or _assessed(measure(args, chance))
    found = [each for each in found if each is not control]
    if not found:
        raise UserError(f"{chance.backbone} with weights none is what others are compared with; name another, too")
    return Ranking.of(
        found,
        control,
        problem_type=first.problem_type,
        baseline=OBJECTIVES[first.problem_type].probe_baseline(first.labels),
    )


def _assessed(measured: Measured) -> Assessment:
    with console.status(f"scoring {measured.candidate.name}"):
        return assess(measured)
