"""``tl advise``: looks at images, backbone and machine, and writes a configuration with its reasons."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tl_lightning.choosing.advising.advice_report import (
    candidate_table,
    decision_tree,
    depth_table,
    estimate_line,
    fact_lines,
    fact_table,
    reason_table,
)
from tl_lightning.choosing.advising.cost import parse_budget
from tl_lightning.choosing.advising.decision import NOISE
from tl_lightning.choosing.advising.facts import Facts
from tl_lightning.choosing.advising.gather import Looked, facts_of, look, set_up
from tl_lightning.choosing.advising.own_settings import own_settings
from tl_lightning.choosing.advising.recipe import check_output, recipe
from tl_lightning.choosing.advising.rules import Advice, advise
from tl_lightning.choosing.advising.timing import SELECTIONS, measure_speeds
from tl_lightning.choosing.ranking.candidates import available, configured, named
from tl_lightning.core.console import console, duration
from tl_lightning.core.files import write_text
from tl_lightning.core.options import OptionParser
from tl_lightning.core.yaml_files import parse_yaml
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.experiment.preamble import assemble, refuse
from tl_lightning.experiment.tables import data_line
from tl_lightning.tasks import ClassificationTask

DEFAULT = "advice.yaml"
ELSEWHERE = {  # options that belong to a run that there is not
    "--run_dir": "tl advise makes no run folder",
    "--ckpt_path": "tl advise looks at pretrained weights, not at a trained run",
}


def advise_command(args: list[str]) -> None:
    """``tl advise``: writes a configuration for these images on this machine, with a reason for every setting.

    Args:
        args: ``--backbones``, ``--budget``, ``--output``, ``--explain`` and everything that ``tl fit`` takes.

    Raises:
        UserError: If an option is wrong, the output would overwrite somebody's work, or something that ``tl fit``
            would say.
    """
    parser = OptionParser(
        "advise",
        "Looks at your images, at what pretrained features make of them and at this machine, and writes a "
        "configuration with a reason for every setting. What you set yourself stays. Takes every option of tl fit too "
        "(tl fit --help).",
    )
    parser.add_argument(
        "--backbones",
        metavar="A,B,...",
        help="candidates, each timm/NAME or timm/NAME=WEIGHTS; default: the configured one, else what is installed or "
        "can be fetched",
    )
    parser.add_argument("--budget", metavar="TIME", help="how long the run may take, such as 30s, 10min, 2h, 1h30min")
    parser.add_argument("--output", metavar="FILE", help=f"the configuration to write (default: {DEFAULT})")
    parser.add_argument("--explain", action="store_true", help="draws the strategy rule with the way taken")
    options, rest = parser.parse_known_args(args)
    budget = None if options.budget is None else parse_budget(options.budget)
    file = check_output(options.output, default=DEFAULT)
    refuse(rest, ELSEWHERE)
    looked, chosen = _choose(rest, options.backbones)
    own = own_settings(rest, looked.configuration)
    if options.backbones is not None:  # which chose another than the configuration's
        own = {key: value for key, value in own.items() if key not in ("model.backbone", "model.weights")}
    facts, advice = _advise(looked, chosen, own, budget)
    for table in (fact_table(facts), depth_table(facts), reason_table(advice.reasons)):
        if table is not None:
            console.print(table)
    gain = None if facts.probe is None else facts.probe.gain
    if gain is not None and gain.value <= NOISE * gain.error:
        console.print(f"caution    that these weights beat random ones is not shown: gain {gain}", style="yellow")
    if options.explain:
        console.print(decision_tree(advice.path), soft_wrap=False)  # or long questions are cut off
    text = text_of(looked.configuration, facts, advice, own)
    assemble(["--config", json.dumps(parse_yaml(text))], command="advise", status="reading the advice back")
    write_text(file, text)
    if advice.seconds is not None:
        console.print(estimate_line(advice.plan, advice.seconds, budget=budget, fits=advice.fits))
    console.print(f"written    {file}; tl fit --config {file} runs it")


def _choose(args: Sequence[str], backbones: str | None) -> tuple[Looked, list[str]]:
    """Looks at every candidate, and takes the cheapest of those whose probe is within the noise of the best."""
    found: list[tuple[Looked, list[str]]] = []
    candidates, asked_for = _candidates(args, backbones)
    for candidate in candidates:
        try:
            configuration, own = set_up([*args, *candidate])
            found.append((look(configuration), own))
        except UserError as error:
            if asked_for or (not found and candidate is candidates[-1]):
                raise
            console.print(f"left out   {candidate[1]}: {error}", style="yellow")
            continue
        if len(found) == 1:
            console.print(data_line(configuration.datamodule.summary()))
    best = max((looked for looked, _ in found), key=lambda looked: looked.top.score.value)
    if len(found) > 1:
        console.print(candidate_table([looked for looked, _ in found], best))
    return min((pair for pair in found if pair[0].as_good_as(best)), key=lambda pair: pair[0].macs)


def _candidates(args: Sequence[str], backbones: str | None) -> tuple[list[list[str]], bool]:
    """The options of each candidate, and whether the user asked for them."""
    if backbones is not None:
        return [candidate.options for candidate in named(backbones)], True
    if configured(args) is not None:
        return [[]], True
    with console.status("looking for backbones"):
        found, said = available()
    for line in said:
        console.print(line, style="dim")
    if not found:
        raise UserError("there is no backbone to advise: give model.backbone in the configuration, or --backbones A,B")
    return [candidate.options for candidate in found], False


def _advise(looked: Looked, args: list[str], own: Mapping[str, Any], budget: float | None) -> tuple[Facts, Advice]:
    """Gathers the rest of the facts, and follows the rules; timed once more where the budget changes the size."""
    facts = facts_of(looked, args)
    train = advise(facts, own=own).plan.train
    selections = tuple(dict.fromkeys([*SELECTIONS, *([train] if train != "head" else [])]))
    facts = replace(facts, speeds=measure_speeds(looked.configuration, selections))
    advice = advise(facts, own=own, budget=budget)
    if advice.plan.image_size != facts.image_size:
        smaller, _ = set_up([*args, "--data.image_size", str(advice.plan.image_size)])
        facts = replace(facts, speeds=measure_speeds(smaller, selections))
        advice = advise(facts, own=own, budget=budget)
    return facts, advice


def text_of(configuration: Configuration, facts: Facts, advice: Advice, own: Mapping[str, Any]) -> str:
    """The file: head lines with the facts, then every setting with its reason.

    Args:
        configuration: What the user asked for; the classes of its model and data are kept.
        facts: For the head of the file.
        advice: What is advised, with the reasons.
        own: The user's settings.
    """
    about = [f"{name.strip()}: {value}" for name, value in fact_lines(facts)]
    if advice.seconds is not None:
        about.append(f"estimate: {duration(advice.seconds)}")
    about += [f"given up for the budget: {text}" for text in advice.given_up]
    classes = {"model": type(configuration.model), "data": type(configuration.datamodule)}
    usual = {"model": ClassificationTask, "data": ImageDataModule}
    paths = {name: configuration.config[name].class_path for name, cls in classes.items() if cls is not usual[name]}
    return recipe(advice.reasons, own, about=about, classes=paths)
