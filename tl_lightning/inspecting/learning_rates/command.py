"""``tl lr_find``: a learning-rate range test before the first real run; it leaves an image and nothing else."""

import math
from pathlib import Path

from tl_lightning.core.console import console
from tl_lightning.core.options import OptionParser, writable
from tl_lightning.core.plots import INSTALL, can_draw
from tl_lightning.errors import UserError
from tl_lightning.experiment.preamble import assemble, read_data, refuse_run_dir
from tl_lightning.feature_cache.phase_cache import PhaseCache
from tl_lightning.inspecting.learning_rates.range_test import range_test, suggestion
from tl_lightning.inspecting.learning_rates.shown import draw, explanation, rate_table
from tl_lightning.inspecting.learning_rates.steps import LrStep
from tl_lightning.training.micro_batches import divide_batches
from tl_lightning.training.single_images import check_single_images

FEWEST_STEPS = 20


def lr_find_command(args: list[str]) -> None:
    """``tl lr_find``: tests a range of learning rates on a configuration, suggests one, and draws the curve.

    Args:
        args: ``--phase N``, ``--steps N``, ``--lowest F``, ``--highest F``, ``--output FILE.png|none``, and everything
            that ``tl fit`` takes.

    Raises:
        UserError: If an option is wrong, matplotlib is missing, or something that ``tl fit`` would say.
    """
    parser = OptionParser(
        "lr_find",
        "Tests which learning rates train: one factor on the rates of all stages rises from step to step until the "
        "loss diverges. Takes every option of tl fit too (tl fit --help). Writes nothing but the image.",
    )
    parser.add_argument("--phase", type=int, default=1, help="the phase to test, from its beginning; 1 is the first")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps at most (default: 100)")
    parser.add_argument("--lowest", type=float, default=1e-4, help="factor on the rates at first (default: 1e-4)")
    parser.add_argument("--highest", type=float, default=1e2, help="factor on the rates at last (default: 100)")
    parser.add_argument(
        "--output", type=_image, default="lr_find.png", help="a PNG file (default: lr_find.png), or none"
    )
    options, rest = parser.parse_known_args(args)
    if options.steps < FEWEST_STEPS:
        raise UserError(f"--steps is {options.steps}; it must be {FEWEST_STEPS} or more: fewer steps show no slope")
    if not 0 < options.lowest < options.highest < math.inf:
        raise UserError(f"--lowest {options.lowest:g} --highest {options.highest:g}: give factors above 0 that rise")
    refuse_run_dir(rest, "lr_find")
    configuration = assemble(rest, command="lr_find")
    task, data, phases = configuration.model, configuration.datamodule, configuration.phases
    if not 1 <= options.phase <= len(phases):
        known = ", ".join(f"{number} ({phase.name})" for number, phase in enumerate(phases, 1))
        raise UserError(f"--phase is {options.phase}, but the phases are {known}; name one of them by its number")
    phase = phases[options.phase - 1]
    read_data(configuration)
    data.set_augmentation(phase.augmentation)
    task.set_training_targets(data.targets("train").labels)
    divide_batches(task, data, configuration.trainer, [phase])
    check_single_images(task, data, configuration.trainer, [phase])
    task.start_phase(phase)
    rows = task.phase_rows()
    if PhaseCache(task, data, configuration.trainer, configuration.config.cache).plan_for(phase).solved:
        solved = (
            f"phase {phase.name} is solved, not trained by steps: it will use no rate (--model.head_solver sgd would)"
        )
        console.print(f"caution    {solved}", style="yellow")
    curve = range_test(
        LrStep(task, data, configuration.trainer, phase=phase),
        steps=options.steps,
        lowest=options.lowest,
        highest=options.highest,
    )
    if not curve.losses:
        raise UserError(
            f"the loss is not a finite number at the very first step, at {options.lowest:g} times the configured "
            "learning rates: none learning rate mends that; look at the data, the weights and trainer.precision"
        )
    factor = suggestion(curve)
    title = f"learning-rate range test, phase {options.phase}/{len(phases)}: {phase.name}"
    console.print(rate_table(rows, factor, title=title))
    head_lr = task.head_learning_rate
    phase_lr = head_lr * phase.lr_scale
    for line in explanation(curve, factor, phase_lr=phase_lr, lr=head_lr / configuration.lr_factor):
        console.print(line)
    if options.output is not None:
        draw(curve, options.output, phase_lr=phase_lr, suggested=factor, title=title)
        console.print(f"curve in {options.output}")


def _image(path: str) -> Path | None:
    """Checks, before anything is trained, that the curve can be drawn there."""
    if path == "none":
        return None
    if not can_draw():
        raise UserError(f"--output needs matplotlib: {INSTALL}, or --output none for the table alone")
    return writable(path)
