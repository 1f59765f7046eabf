"""The advice on the screen: facts, depth and similarity, reasons, and the tree of the strategy rule."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tl_lightning.choosing.advising.cost import Plan
from tl_lightning.choosing.advising.decision import TREE, Question, Step, Strategy, similarity_number, similarity_word
from tl_lightning.choosing.advising.facts import Facts, Speeds
from tl_lightning.choosing.advising.gather import Looked
from tl_lightning.choosing.advising.reasons import Reason
from tl_lightning.core.console import duration, new_table
from tl_lightning.tasks.objectives import OBJECTIVES


def fact_table(facts: Facts) -> Table:
    """What was found out, a line each."""
    table = Table(title="facts", title_justify="left", title_style="bold", show_header=False)
    table.add_column("fact", no_wrap=True)
    table.add_column("value")
    for name, value in fact_lines(facts):
        table.add_row(name, value)
    return table


def fact_lines(facts: Facts) -> list[tuple[str, str]]:
    """What was found out, in words."""
    images, model, machine, probe = facts.images, facts.model, facts.machine, facts.probe
    counts = f"{images.training:,} training, {images.validation:,} validation, {images.test:,} test"
    objective = OBJECTIVES[images.problem_type]
    kinds = f"{images.classes} {objective.nouns}"
    if objective.counts:
        kinds += f", {images.smallest:,} of the rarest, {images.imbalance:.1f} times as many of the most frequent"
    lines = [("images", counts), ("targets", kinds)]
    if images.groups is not None:
        lines.append(("groups", f"{images.groups:,}"))
    if images.short_side is not None:
        lines.append(("files", f"shorter side {images.short_side} px (median), {images.grey:.0%} greyscale"))
    lines.append(("backbone", f"{model.backbone}, {model.weights}, {model.parameters / 1e6:.1f} M parameters"))
    if probe is not None:
        lines.append((f"probe, {probe.what}", f"{probe.pretrained}; baseline {probe.baseline:.3f}"))
        if probe.random is not None:
            lines.append(("  random weights", f"{probe.random}; gain {probe.gain}"))
        if probe.best_stage is not None and probe.below:
            lines.append(("  best stage", f"{probe.best_stage}, better than the top by {probe.top_behind}"))
    lines.append(("similarity", f"{similarity_word(facts)}: {similarity_number(facts)}"))
    lines.append(("machine", f"{machine.device}, {machine.cores} cores, {machine.precision}"))
    return lines + ([] if facts.speeds is None else [("images/s", speed_line(facts.speeds))])


def speed_line(speeds: Speeds) -> str:
    """Images per second, forward and in training."""
    parts = [f"forward {1 / speeds.forward:,.0f}"]
    for name, seconds in speeds.train.items():
        cached = f" ({1 / speeds.cached[name]:,.0f} from the feature cache)" if name in speeds.cached else ""
        parts.append(f"training {name} {1 / seconds:,.0f}{cached}")
    return f"{', '.join(parts)}; at {speeds.size} px"


def candidate_table(candidates: Sequence[Looked], best: Looked) -> Table:
    """The candidates, the best first.

    Args:
        candidates: All on the same images.
        best: One of them.
    """
    names = [each.name.partition("=")[0] for each in candidates]  # the weights matter only where that is not enough
    table = new_table("candidates", "backbone", numbers=("probe", "behind the best", "G MACs"))
    for each in sorted(candidates, key=lambda candidate: -candidate.top.score.value):
        behind = "best" if each is best else str(best.top.ahead_of(each.top))
        backbone = each.name.partition("=")[0]
        table.add_row(
            backbone if names.count(backbone) == 1 else each.name, str(each.top.score), behind, f"{each.macs / 1e9:.2f}"
        )
    return table


def depth_table(facts: Facts) -> Table | None:
    """Each stage's probe and distance from the source; `None` where there is neither."""
    probe, similarity = facts.probe, facts.similarity
    distances = dict(similarity.stages) if similarity is not None else {}
    scores = dict(probe.stages) if probe is not None and len(probe.stages) > 1 else {}
    if not distances and not scores:
        return None
    numbers = ("probe" if probe is None else f"probe, {probe.what}", "distance from the source")
    table = new_table("by stage, input to output", "stage", numbers=numbers)
    for stage in dict.fromkeys([*scores, *distances]):
        distance = f"{distances[stage]:.2f}" if stage in distances else ""
        table.add_row(stage, str(scores.get(stage, "")), distance)
    return table


def reason_table(reasons: Sequence[Reason]) -> Table:
    """Every setting with why."""
    table = Table(title="advice", title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold", max_width=24)
    table.add_column("why")
    for reason in reasons:
        source = f" [{reason.source}]" if reason.source and reason.source != "yours" else ""
        number = f" ({reason.number})" if reason.number else ""
        table.add_row(reason.setting, _short(reason.value), Text(f"{reason.why}{number}{source}"))
    return table


def _short(value: Any) -> Text:  # noqa: ANN401 - any value of a configuration
    if isinstance(value, list):
        return Text("; ".join(_short(entry).plain for entry in value))
    if isinstance(value, dict):
        return Text(", ".join(f"{key}: {entry}" for key, entry in value.items()))
    return Text("off" if value is None else str(value))


def estimate_line(plan: Plan, seconds: float, *, budget: float | None, fits: bool | None) -> str:
    """How long it would take, and whether that is within the budget."""
    line = f"estimate   {duration(seconds)} for {plan.strategy} at {plan.image_size} px, its test included"
    if budget is None or fits is None:
        return line
    within = "within" if fits else "NOT within"
    tail = "" if fits else "; nothing quicker is left to advise: fewer images (data.labelled_fraction) would be"
    return f"{line}; {within} the budget of {duration(budget)}{tail}"


def decision_tree(path: Sequence[Step]) -> Tree:
    """The whole rule, with the way that these facts take in bold and its numbers."""
    root = Tree(Text("strategy rule", style="bold"))
    _grow(root, TREE, list(path), label="", taken=True)
    return root


def _grow(parent: Tree, node: Question | Strategy, path: list[Step], *, label: str, taken: bool) -> None:
    style = "bold green" if taken else "dim"
    before = f"{label}: " if label else ""
    if isinstance(node, Strategy):
        arrow = "==> " if taken else ""
        parent.add(Text(f"{before}{arrow}{node.name} - {node.why}", style=style))
        return
    step = path[0] if taken and path else None
    number = f"  [{step.number}]" if step is not None else ""
    branch = parent.add(Text(f"{before}{node.text}{number}", style=style))
    for answer, following in node.branches.items():
        here = step is not None and answer == step.answer
        _grow(branch, following, path[1:] if here else [], label=answer, taken=here)
