import io
import math
import sys
import types
import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as torch_schedules
from torch.optim.swa_utils import SWALR

from tl_lightning.backbones import Stage
from tl_lightning.errors import UserError
from tl_lightning.finetuning.groups import parameter_groups
from tl_lightning.finetuning.schedules import (
    Schedule,
    build_schedule,
    parse_schedule,
    set_learning_rates,
)
from tl_lightning.finetuning.torch_schedulers import TORCH_SCHEDULERS

RATES = {"0": 1e-4, "1": 3e-4, "head": 1e-3}
STAGES = tuple(Stage(str(k), (f"{k}.weight",), ()) for k in range(2))
STEPS, EPOCHS = 10, 5
METRICS = (0.5, 0.6, 0.6, 0.6, 0.7)


def falling(step):
    return 0.9**step


def slower(step):
    return 1 / (1 + step)


class Halving(torch_schedules.LRScheduler):
    """A user's own: half of the rate after every quarter of the total."""

    def __init__(self, optimizer, total_steps, last_epoch=-1):
        self.quarter = total_steps / 4
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        return [base * 0.5 ** (self.last_epoch // self.quarter) for base in self.base_lrs]


class Fussy(torch_schedules.LRScheduler):
    def __init__(self, optimizer, anything):
        raise RuntimeError("not\nlike this")


def one_cycle_by_hand(optimizer):
    peaks = [group["lr"] for group in optimizer.param_groups]
    return torch_schedules.OneCycleLR(optimizer, peaks, total_steps=STEPS, cycle_momentum=False)


def cyclic_by_hand(optimizer):
    peaks = [group["lr"] for group in optimizer.param_groups]
    bottoms = [peak / 10 for peak in peaks]
    return torch_schedules.CyclicLR(optimizer, bottoms, peaks, step_size_up=STEPS // 2, cycle_momentum=False)


def swa_by_hand(optimizer):
    largest = max(group["lr"] for group in optimizer.param_groups)
    targets = [0.5 * (group["lr"] / largest) for group in optimizer.param_groups]
    return SWALR(optimizer, targets, anneal_epochs=3)


def spec(name, **init_args):
    return {"class_path": name, "init_args": init_args}


# What a configuration says, and the same by hand on a fresh optimizer at the phase's rates.
CASES = {
    "LambdaLR": (spec("LambdaLR", lr_lambda="my_rates.falling"), lambda o: torch_schedules.LambdaLR(o, falling)),
    "MultiplicativeLR": (
        spec("MultiplicativeLR", lr_lambda="my_rates.slower"),
        lambda o: torch_schedules.MultiplicativeLR(o, slower),
    ),
    "StepLR": (spec("StepLR", step_size=2), lambda o: torch_schedules.StepLR(o, 2)),
    "MultiStepLR": (spec("MultiStepLR", milestones=["40%", 4]), lambda o: torch_schedules.MultiStepLR(o, [2, 4])),
    "ConstantLR": ("ConstantLR", lambda o: torch_schedules.ConstantLR(o, total_iters=STEPS)),
    "LinearLR": ("LinearLR", lambda o: torch_schedules.LinearLR(o, total_iters=STEPS)),
    "ExponentialLR": (spec("ExponentialLR", gamma=0.5), lambda o: torch_schedules.ExponentialLR(o, 0.5)),
    "PolynomialLR": (
        spec("torch.optim.lr_scheduler.PolynomialLR", power=2.0),
        lambda o: torch_schedules.PolynomialLR(o, STEPS, 2.0),
    ),
    "CosineAnnealingLR": ("CosineAnnealingLR", lambda o: torch_schedules.CosineAnnealingLR(o, STEPS)),
    "CosineAnnealingWarmRestarts": (
        "CosineAnnealingWarmRestarts",
        lambda o: torch_schedules.CosineAnnealingWarmRestarts(o, STEPS),
    ),
    "ReduceLROnPlateau": (
        spec("ReduceLROnPlateau", patience=0, factor=0.5),
        lambda o: torch_schedules.ReduceLROnPlateau(o, "max", factor=0.5, patience=0),
    ),
    "CyclicLR": ("CyclicLR", cyclic_by_hand),
    "OneCycleLR": ("OneCycleLR", one_cycle_by_hand),
    "SWALR": (spec("SWALR", swa_lr=0.5, anneal_epochs=3), swa_by_hand),
    "a user's own": (spec("my_rates.Halving"), lambda o: Halving(o, STEPS)),
}
BY_EPOCH = {"StepLR", "MultiStepLR", "ExponentialLR", "ReduceLROnPlateau", "SWALR"}
CYCLING = spec("OneCycleLR", cycle_momentum=True)


@pytest.fixture(autouse=True)
def my_rates(monkeypatch):
    """A user's own module."""
    module = types.ModuleType("my_rates")
    module.falling, module.slower, module.Halving, module.Fussy = falling, slower, Halving, Fussy
    monkeypatch.setitem(sys.modules, "my_rates", module)


def named_groups():
    backbone = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    head = nn.Linear(2, 2, bias=False)
    return parameter_groups(backbone, {"head": head}, STAGES, learning_rates=RATES, weight_decay=0.1)


def adamw(lr_scale=1.0):
    """A fresh optimizer; the scale is for schedulers made by hand."""
    return torch.optim.AdamW([{**group, "lr": group["lr"] * lr_scale} for group in named_groups()])


def start(optimizer, value, *, lr_scale=1.0, warmup=0.1, steps=STEPS, epochs=EPOCHS):
    schedule = value if isinstance(value, Schedule) else parse_schedule(value, "phases[0].schedule")
    return build_schedule(optimizer, schedule, lr_scale=lr_scale, warmup=warmup, steps=steps, epochs=epochs, mode="max")


def step_through(optimizer, scheduler, interval, steps=range(STEPS)):
    """The rates and betas that each step uses; two steps make an epoch."""
    seen = []
    for step in steps:
        seen.append([(group["lr"], group.get("betas")) for group in optimizer.param_groups])
        optimizer.step()
        if interval == "step" or step % 2 == 1:
            plateau = isinstance(scheduler, torch_schedules.ReduceLROnPlateau)
            scheduler.step(METRICS[step // 2]) if plateau else scheduler.step()
    return seen


def rates(optimizer, running, steps=range(STEPS)):
    return [[lr for lr, _ in groups] for groups in step_through(optimizer, running.scheduler, running.interval, steps)]


def test_every_scheduler_of_torch_is_known_and_tested():
    assert {*TORCH_SCHEDULERS} == {*CASES} - {"a user's own"}


@pytest.mark.parametrize("name", CASES)
def test_a_class_gives_the_rates_it_gives_by_hand(name):
    value, by_hand = CASES[name]
    optimizer, other = adamw(), adamw()
    running = start(optimizer, value)
    assert running.interval == ("epoch" if name in BY_EPOCH else "step")
    assert running.plateau == (name == "ReduceLROnPlateau")
    expected = step_through(other, by_hand(other), running.interval)
    assert step_through(optimizer, running.scheduler, running.interval) == expected
    # Over a whole phase ConstantLR's factor never ends.
    assert (len({tuple(groups) for groups in expected}) == 1) == (name == "ConstantLR")


@pytest.mark.parametrize("first", ["same", "cycling"])
@pytest.mark.parametrize("name", [*CASES, "cosine", "linear", "constant"])
def test_a_second_phase_uses_the_rates_of_a_fresh_optimizer(name, first):
    value = CASES[name][0] if name in CASES else name
    optimizer, fresh = adamw(), adamw()
    running = start(optimizer, value if first == "same" else CYCLING)
    step_through(optimizer, running.scheduler, running.interval)
    second, alone = (start(each, value, lr_scale=0.3) for each in (optimizer, fresh))
    expected = step_through(fresh, alone.scheduler, alone.interval)
    assert step_through(optimizer, second.scheduler, second.interval) == expected
    if name in CASES:
        by_hand = adamw(0.3)
        assert step_through(by_hand, CASES[name][1](by_hand), second.interval) == expected


@pytest.mark.parametrize("name", [*CASES, "cosine", "linear", "constant", "cycling"])
def test_a_saved_schedule_goes_on_exactly_where_it_stopped(name):
    value = CYCLING if name == "cycling" else CASES[name][0] if name in CASES else name
    optimizer = adamw()
    running = start(optimizer, value)
    step_through(optimizer, running.scheduler, running.interval, range(4))
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": running.scheduler.state_dict()}, file)
    file.seek(0)
    rest = step_through(optimizer, running.scheduler, running.interval, range(4, STEPS))

    saved = torch.load(file, weights_only=True)
    other = adamw()
    resumed = start(other, value)
    other.load_state_dict(saved["optimizer"])
    resumed.scheduler.load_state_dict(saved["scheduler"])
    assert step_through(other, resumed.scheduler, resumed.interval, range(4, STEPS)) == rest

    # The phase after a resumed one starts as any other.
    fresh = adamw()
    start(other, "linear", warmup=0.0)
    start(fresh, "linear", warmup=0.0)
    assert [group["betas"] for group in other.param_groups] == [(0.9, 0.999)] * 3
    assert [group["lr"] for group in other.param_groups] == [group["lr"] for group in fresh.param_groups]


def test_many_schedulers_in_a_row_on_one_optimizer_raise_no_warning():
    optimizer = adamw()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for value in [case for case, _ in CASES.values()] * 2:
            running = start(optimizer, value)
            step_through(optimizer, running.scheduler, running.interval)
    assert [str(warning.message) for warning in seen] == []


def test_each_phase_warms_up_to_its_scaled_rate_and_comes_down_to_zero():
    optimizer = adamw()
    for scale in (1.0, 0.5):  # the second is relative to the base, not to the first
        running = start(optimizer, "cosine", lr_scale=scale, warmup=0.2)
        seen = rates(optimizer, running)
        shares = [1 / 3, 2 / 3, *(0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8))]
        assert seen == [[RATES[name] * scale * share for name in RATES] for share in shares]
        assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("shape", "shares"),
    [
        ("linear", [1 / 3, 2 / 3, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0]),
        ("constant", [1 / 3, 2 / 3, *[1.0] * 9]),
    ],
)
def test_linear_falls_to_zero_and_constant_stays(shape, shares):
    optimizer = adamw()
    running = start(optimizer, shape, warmup=0.2)
    seen = [*rates(optimizer, running), [group["lr"] for group in optimizer.param_groups]]
    assert seen == [[RATES[name] * share for name in RATES] for share in shares]


def test_a_phase_without_warm_up_starts_at_the_peak():
    optimizer = adamw()
    start(optimizer, "cosine", warmup=0.0)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-4, 3e-4, 1e-3]


def test_a_cycled_momentum_and_a_cycle_s_limits_do_not_outlive_their_phase():
    optimizer = torch.optim.SGD(named_groups(), momentum=0.7)
    running = start(optimizer, CYCLING)
    assert optimizer.param_groups[0]["momentum"] == 0.95
    step_through(optimizer, running.scheduler, "step")
    set_learning_rates(optimizer, 1.0)
    for group in optimizer.param_groups:
        assert group["momentum"] == 0.7
        assert not {"max_lr", "min_lr", "max_momentum", "base_momentum"} & group.keys()
        assert group["lr"] == group["initial_lr"] == group["base_lr"]


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
def test_one_highest_rate_is_the_head_s_and_the_others_keep_their_ratio(name):
    optimizer = adamw()
    running = start(optimizer, spec(name, max_lr=0.5), lr_scale=0.1)
    seen = rates(optimizer, running)
    assert max(head for _, _, head in seen) == pytest.approx(0.5, rel=0.01)
    for bottom, top, head in seen:
        assert bottom / head == pytest.approx(0.1)
        assert top / head == pytest.approx(0.3)


def test_highest_rates_may_be_given_group_by_group():
    optimizer = adamw()
    start(optimizer, spec("OneCycleLR", max_lr=[0.1, 0.2, 0.3]))
    assert [group["max_lr"] for group in optimizer.param_groups] == [0.1, 0.2, 0.3]


def test_an_interval_that_is_given_wins_and_sets_the_length():
    optimizer = adamw()
    by_epoch = start(optimizer, {"class_path": "CosineAnnealingLR", "interval": "epoch"})
    assert (by_epoch.interval, by_epoch.scheduler.T_max) == ("epoch", EPOCHS)
    by_step = start(optimizer, {"class_path": "StepLR", "init_args": {"step_size": 3}, "interval": "step"})
    assert (by_step.interval, by_step.scheduler.step_size) == ("step", 3)
    assert start(optimizer, {"class_path": "OneCycleLR", "interval": "epoch"}).scheduler.total_steps == EPOCHS


def test_a_cycle_starts_at_its_lowest_learning_rate():
    optimizer = adamw()
    start(optimizer, "CyclicLR")
    assert [group["lr"] for group in optimizer.param_groups] == [rate / 10 for rate in RATES.values()]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [*RATES.values()]


def test_what_a_user_gives_is_not_filled_in():
    optimizer = adamw()
    assert start(optimizer, spec("CosineAnnealingLR", T_max=4)).scheduler.T_max == 4
    assert start(optimizer, spec("OneCycleLR", epochs=5, steps_per_epoch=3)).scheduler.total_steps == 15
    assert start(optimizer, spec("ReduceLROnPlateau", mode="min")).scheduler.mode == "min"
    assert start(optimizer, spec("CyclicLR", step_size_up=3)).scheduler.total_size == 6


@pytest.mark.parametrize("name", CASES)
def test_a_phase_of_a_single_step_runs(name):
    optimizer = adamw()
    running = start(optimizer, CASES[name][0], steps=1, epochs=1)
    step_through(optimizer, running.scheduler, "step", [0])


def test_a_rise_of_one_step_starts_one_cycle_at_its_peak():
    # Torch divides by zero here.
    optimizer = adamw()
    start(optimizer, spec("OneCycleLR", pct_start=0.1))
    assert [group["lr"] for group in optimizer.param_groups] == [1e-4, 3e-4, 1e-3]


def test_a_cycle_that_ends_before_its_phase_is_an_error():
    message = r"^schedule: OneCycleLR ends after 9 steps, but the phase has 10; omit total_steps, "
    with pytest.raises(UserError, match=message):
        start(adamw(), spec("OneCycleLR", total_steps=9))


def test_a_list_that_does_not_fit_the_groups_is_an_error():
    message = r"^schedule: OneCycleLR refuses its arguments; ValueError: max_lr must have the same length"
    with pytest.raises(UserError, match=message):
        start(adamw(), spec("OneCycleLR", max_lr=[0.1, 0.2]))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("cosin", "phases[1].schedule: 'cosin' is no schedule; did you mean cosine?"),
        ("OneCycel", "phases[1].schedule: 'OneCycel' is no schedule; did you mean OneCycleLR"),
        (3, "phases[1].schedule is 3; it must be cosine, linear, constant or a mapping"),
        (None, "phases[1].schedule is None; it must be"),
        ({"class_pth": "StepLR"}, "phases[1].schedule: unknown key 'class_pth'; did you mean class_path?"),
        ({"init_args": {}}, "phases[1].schedule.class_path is None; it must name a scheduler"),
        (
            spec("OneCycleLR", pct_strat=0.2),
            "phases[1].schedule.init_args: OneCycleLR has no argument 'pct_strat'; did you mean pct_start",
        ),
        (spec("StepLR", step_size=1, last_epoch=3), "StepLR has no argument 'last_epoch'"),
        ("StepLR", "phases[1].schedule.init_args: StepLR needs 'step_size'; give it"),
        ("my_rates.Fussy", "phases[1].schedule.init_args: Fussy needs 'anything'"),
        (
            spec("my_rates.Fussy", anything=1),
            "phases[1].schedule: Fussy refuses its arguments; RuntimeError: not like this",
        ),
        (
            spec("OneCycleLR", anneal_strategy="sin"),
            "phases[1].schedule: OneCycleLR refuses its arguments; ValueError: anneal_strategy must be",
        ),
        (spec("CyclicLR", max_lr="high"), "phases[1].schedule: CyclicLR refuses its arguments; TypeError: "),
        (spec("StepLR", step_size=0), "phases[1].schedule: StepLR refuses its arguments; ZeroDivisionError: "),
        (spec("StepLR", step_size="3"), "phases[1].schedule: StepLR refuses its arguments; TypeError: "),
        (spec("CosineAnnealingLR", T_max=0), "phases[1].schedule: CosineAnnealingLR refuses its arguments; Zero"),
        (
            spec("OneCycleLR", pct_start=1),
            "phases[1].schedule.init_args.pct_start is 1; OneCycleLR has to fall as well",
        ),
        (
            "my_nothing.Rates",
            "phases[1].schedule is 'my_nothing.Rates', which cannot be imported (ModuleNotFoundError: No module",
        ),
        (
            "my_rates.Halvin",
            "phases[1].schedule is 'my_rates.Halvin', but my_rates has no 'Halvin'; did you mean Halving",
        ),
        ("my_rates.falling", "phases[1].schedule: 'my_rates.falling' is no scheduler; it must be a class"),
        ("torch.optim.AdamW", "phases[1].schedule: 'torch.optim.AdamW' is no scheduler; it must be a class"),
        (
            {"class_path": "LinearLR", "interval": "batch"},
            "phases[1].schedule.interval is 'batch'; it must be step or epoch",
        ),
        ({"class_path": "LinearLR", "init_args": [1]}, "phases[1].schedule.init_args is [1]; it must be a mapping"),
        (spec("LambdaLR", lr_lambda="x * 2"), "init_args.lr_lambda is 'x * 2'; give an import path"),
        (
            spec("LambdaLR", lr_lambda="my_rates.Halving"),
            "init_args.lr_lambda is 'my_rates.Halving', which is no function",
        ),
        (
            spec("ChainedScheduler", schedulers=["LinearLR"]),
            "phases[1].schedule: ChainedScheduler is made of other schedules; give each of them a phase of its own",
        ),
        ("torch.optim.lr_scheduler.SequentialLR", "phases[1].schedule: SequentialLR is made of other schedules"),
        (spec("MultiStepLR", milestones=["200%"]), "init_args.milestones is ['200%']; give a list of whole numbers"),
        (spec("MultiStepLR", milestones=[0.5]), "init_args.milestones is [0.5]; give a list"),
        (spec("MultiStepLR", milestones="20%"), "init_args.milestones is '20%'; give a list"),
    ],
)
def test_a_mistake_is_one_line_that_names_place_value_and_remedy(value, message):
    with pytest.raises(UserError) as caught:
        parse_schedule(value, "phases[1].schedule")
    assert message in str(caught.value)
    assert "phases[1].schedule" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_schedule_is_plain_data():
    assert parse_schedule("linear", "x") == Schedule(shape="linear")
    parsed = parse_schedule(spec("LinearLR", start_factor=0.1), "x")
    assert parsed == Schedule(None, "LinearLR", {"start_factor": 0.1})
    assert hash(parsed) == hash(Schedule(None, "LinearLR"))
