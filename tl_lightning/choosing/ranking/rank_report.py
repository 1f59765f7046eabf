"""What ``tl rank`` shows: a table, a sentence of advice, and estimate against cost as numbers and as a chart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from tl_lightning.choosing.ranking.assess import Assessment, titles
from tl_lightning.core.console import new_table
from tl_lightning.core.files import write_csv
from tl_lightning.core.pages import page as pages
from tl_lightning.core.pages.page import NO_CHARTS, Chart, Charts, Text, to_html
from tl_lightning.core.plots import as_svg, can_draw, log_scale, new_figure
from tl_lightning.tasks.objectives import OBJECTIVES

SCORES = {"kNN": "neighbours", "LogME": "log_me", "H-score": "h_score", "LEEP": "leep", "NCE": "nce"}


@dataclass(frozen=True, eq=False)
class Ranking:
    """Candidates in order, and what they have to beat.

    Attributes:
        found: The best first; of equals the cheaper one.
        names: A short name for each.
        control: An architecture of theirs with random weights.
        problem_type: multiclass, ordinal, multilabel or regression.
        baseline: The score of always predicting the most frequent target; `None` for regression, where R2 would be 0.
    """

    found: tuple[Assessment, ...]
    names: tuple[str, ...]
    control: Assessment
    problem_type: str
    baseline: float | None

    @classmethod
    def of(
        cls, found: Sequence[Assessment], control: Assessment, *, problem_type: str, baseline: float | None
    ) -> "Ranking":
        """Puts candidates in order.

        Args:
            found: At least one.
            control: An architecture of theirs with random weights.
            problem_type: multiclass, ordinal, multilabel or regression.
            baseline: The score of always predicting the most frequent target; `None` for regression.
        """
        order = tuple(sorted(found, key=lambda each: (-each.accuracy, each.macs)))
        return cls(order, tuple(titles([each.candidate for each in order])), control, problem_type, baseline)

    @property
    def probe_name(self) -> str:
        """What the estimate is called."""
        return OBJECTIVES[self.problem_type].probe_name

    @property
    def baseline_name(self) -> str:
        """What the prediction without features is called."""
        return OBJECTIVES[self.problem_type].probe_baseline_name

    @property
    def best(self) -> Assessment:
        """The one with the highest estimate; being picked from several, it is a little less good than it seems."""
        return self.found[0]

    @property
    def control_name(self) -> str:
        """The control in words."""
        return f"random weights ({self.control.candidate.name})"


def advice(ranking: Ranking) -> str:
    """Says in words which candidate is the best, which is the cheapest that does as well, and whether any helps."""
    best, control = ranking.best, ranking.control
    named = list(zip(ranking.names, ranking.found, strict=True))
    same = [(name, each) for name, each in named[1:] if each.within_noise_of(best)]
    estimate = ranking.probe_name
    said = [f"best: {ranking.names[0]}, {estimate} {best.accuracy:.3f} ± {best.error:.3f}"]
    name, cheapest = min([named[0], *same], key=lambda pair: pair[1].macs)
    if cheapest is not best:
        distance, error = cheapest.behind(best)
        share = cheapest.macs / best.macs
        behind = f"{distance:.3f} ± {error:.3f} behind for {share:.0%} of the arithmetic"
        said.append(f"the cheapest within the noise of it: {name}, {behind}")
    elif same:
        said.append(f"it is also the cheapest of those within the noise of it ({', '.join(name for name, _ in same)})")
    elif len(named) > 1:
        said.append("no other is within the noise of it")
    if control.within_noise_of(best):
        distance, error = control.behind(best)
        said.append(
            f"beware: it is {distance:+.3f} ± {error:.3f} ahead of {ranking.control_name}, which is within the noise: "
            "that these weights help is not shown; more images would tell, or weights from a source closer to yours"
        )
    elif wanting := [name for name, each in named[1:] if control.within_noise_of(each)]:
        said.append(f"not shown to be better than random weights: {', '.join(wanting)}")
    return "; ".join(said)


def rank_table(ranking: Ranking) -> Table:
    """Shows the candidates, the best first, and below them what they have to beat."""
    probed, all_of_them = len(ranking.best.rows), ranking.best.images
    drawn = f" drawn of {all_of_them:,}" if probed < all_of_them else ""
    title = f"linear probe of frozen features: {probed:,} images{drawn}, each by a head that has not seen it"
    everything = (*ranking.found, ranking.control)
    used = {name: key for name, key in SCORES.items() if any(getattr(each, key) is not None for each in everything)}
    numbers = (
        ranking.probe_name,
        "behind the best",
        *used,
        "px",
        "s",
        "M params",
        "G MACs",
        "images/s",
    )
    table = new_table(title, "backbone", numbers=numbers)
    for name, each in zip((*ranking.names, ranking.control_name), everything, strict=True):
        if each is ranking.control:
            table.add_section()
        distance, error = each.behind(ranking.best)
        noise = "\nwithin the noise" if each.within_noise_of(ranking.best) else ""
        scores = [getattr(each, key) for key in used.values()]
        table.add_row(
            name,
            f"{each.accuracy:.3f} ± {each.error:.3f}",
            "best" if each is ranking.best else f"{distance:.3f} ± {error:.3f}{noise}",
            *("" if score is None else f"{score:.3f}" for score in scores),
            str(each.image_size or ""),
            f"{each.seconds:.1f}",
            f"{each.parameters / 1e6:.2f}",
            f"{each.macs / 1e9:.3f}",
            f"{each.speed:.0f}",
            style="bold" if each is ranking.best else None,
        )
    if ranking.baseline is not None:
        table.add_row(ranking.baseline_name, f"{ranking.baseline:.3f}")
    return table


def write_metrics(ranking: Ranking, file: Path) -> None:
    """Writes a row per candidate, the best first, the control last; scores that the targets do not have stay empty."""
    plain = ["log_me", "h_score", "leep", "nce", "image_size", "seconds", "parameters", "macs", "speed"]
    rows: list[list[object]] = [
        [
            *("backbone", "weights", "control", ranking.probe_name.replace(" ", "_"), "standard_error"),
            *("behind", "behind_error", "within_noise", "neighbours", *plain),
        ]
    ]
    for each in (*ranking.found, ranking.control):
        start = [each.candidate.backbone, each.candidate.weights, int(each is ranking.control)]
        estimate = [each.accuracy, each.error, *each.behind(ranking.best), int(each.within_noise_of(ranking.best))]
        rows.append([*start, *estimate, *(getattr(each, key) for key in ("neighbours", *plain))])
    write_csv(file, rows)


def draw(ranking: Ranking) -> Chart:
    """Draws the estimate against the arithmetic that an image takes, and the control as a line."""
    from matplotlib.ticker import EngFormatter

    figure, axes = new_figure()
    by_cost = sorted(zip(ranking.names, ranking.found, strict=True), key=lambda pair: pair[1].macs)
    for place, (name, each) in enumerate(by_cost):
        colour = "tab:blue" if each.within_noise_of(ranking.best) else "tab:gray"
        axes.errorbar(each.macs, each.accuracy, yerr=each.error, marker="o", capsize=4, color=colour)
        offset = (7, 6 if place % 2 else -13)  # neighbours of about the same cost do not write over each other
        axes.annotate(name, (each.macs, each.accuracy), xytext=offset, textcoords="offset points", fontsize=9)
    control = ranking.control
    label = f"{ranking.control_name}: {control.accuracy:.3f} ± {control.error:.3f}"
    axes.axhline(control.accuracy, color="tab:red", linestyle="--", label=label)
    axes.axhspan(control.accuracy - control.error, control.accuracy + control.error, color="tab:red", alpha=0.15)
    if ranking.baseline is not None:
        label = f"{ranking.baseline_name}: {ranking.baseline:.3f}"
        axes.axhline(ranking.baseline, color="gray", linestyle=":", label=label)
    axes.plot([], [], "o", color="tab:blue", label="the best, and what is within the noise of it")
    log_scale(axes)
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.margins(x=0.3, y=0.15)
    axes.set_xlabel("multiplications with an addition, per image")
    axes.set_ylabel(f"{ranking.probe_name} of a linear probe (± 1 s.e.)")
    figure.legend(loc="outside upper center", frameon=False, fontsize=9)
    caption = (
        "The cheapest backbone that is as good as the best is the leftmost blue dot; one near the red band is no gain."
    )
    return Chart(caption, as_svg(figure, "ranking"))


def page(ranking: Ranking) -> str:
    """The table, the advice and, where matplotlib is installed, the chart as a page."""
    chart = Charts("", [draw(ranking)]) if can_draw() else NO_CHARTS
    return to_html("backbones ranked", [Text(advice(ranking)), chart, pages.Table.of(rank_table(ranking))])
