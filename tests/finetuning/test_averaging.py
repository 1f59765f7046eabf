import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from tiny import write_images
from torch import nn

from tl_lightning.cli import main
from tl_lightning.errors import UserError
from tl_lightning.finetuning.averaging import ALPHAS, ExponentialMovingAverage, greedy_soup, interpolate, mean, wise_ft

FIT = [
    *("fit", "--data.source", "images", "--data.image_size", "32", "--data.batch_size", "4"),
    *("--model.backbone", "timm/test_efficientnet", "--model.weights", "none", "--model.lr", "0.01"),
    *("--checkpoint.monitor", "val/loss", "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"),
    *("--trainer.enable_progress_bar", "false"),
]


def trainer_at(*, steps=100, epochs=1, epoch=0):
    """What the mean asks of a trainer."""
    return SimpleNamespace(
        estimated_stepping_batches=steps,
        max_epochs=epochs,
        current_epoch=epoch,
        fit_loop=SimpleNamespace(_should_accumulate=lambda: False),
        state=SimpleNamespace(fn=TrainerFn.FITTING),
    )


def one_weight(value=0.0):
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(value)
    return module


def started(module, decay, trainer):
    ema = ExponentialMovingAverage(decay)
    ema.setup(trainer, module, "fit")
    ema.on_train_start(trainer, module)
    return ema


def saved(ema, module, trainer):
    checkpoint = {"state_dict": module.state_dict()}
    ema.on_save_checkpoint(trainer, module, checkpoint)
    return checkpoint


def averaged(ema, module, trainer, name="weight"):
    return float(saved(ema, module, trainer)["state_dict"][name])


def step(ema, module, trainer, value):
    module.weight.data.fill_(value)
    ema.on_train_batch_end(trainer, module)


def test_the_decay_warms_up_to_what_was_asked_for():
    module, trainer = one_weight(2.0), trainer_at()
    ema = started(module, 0.22, trainer)
    expected = 2.0
    for value, decay in ((1.0, 2 / 11), (3.0, 0.22), (-5.0, 0.22), (0.5, 0.22)):  # the second would be 3 / 12
        step(ema, module, trainer, value)
        expected = decay * expected + (1 - decay) * value
        assert averaged(ema, module, trainer) == pytest.approx(expected, rel=1e-6)
        assert module.weight.item() == value

    ema = started(module, 0.99, trainer)
    expected = 0.5
    for number, value in enumerate((1.0, 3.0, -5.0), 1):
        step(ema, module, trainer, value)
        decay = (1 + number) / (10 + number)
        expected = decay * expected + (1 - decay) * value
        assert averaged(ema, module, trainer) == pytest.approx(expected, rel=1e-6)


def test_a_batch_that_only_accumulates_gradients_moves_nothing():
    module, trainer = one_weight(), trainer_at()
    ema = started(module, 0.5, trainer)
    trainer.fit_loop._should_accumulate = lambda: True
    step(ema, module, trainer, 1.0)
    assert averaged(ema, module, trainer) == 0.0
    assert ema.state_dict()["steps"] == 0


@pytest.mark.parametrize(
    ("trainer", "decay"),
    [
        (trainer_at(steps=50), 0.9),
        (trainer_at(steps=1000), 0.99),
        (trainer_at(steps=4000, epochs=40, epoch=20), 0.995),  # a second phase: half of the epochs, 2000 steps
    ],
)
def test_an_automatic_decay_fits_the_length_of_the_phase(trainer, decay):
    module = one_weight()
    ema = started(module, "auto", trainer)
    ema.load_state_dict({**ema.state_dict(), "steps": 10**6})  # past the warm-up
    step(ema, module, trainer, 1.0)
    assert averaged(ema, module, trainer) == pytest.approx(1 - decay, rel=1e-4)


def test_an_automatic_decay_is_the_same_after_a_resume_in_the_middle_of_the_phase():
    module = one_weight()
    whole = trainer_at(steps=1000, epochs=10)
    first = started(module, "auto", whole)
    first._steps = 10**6
    step(first, module, whole, 1.0)
    checkpoint, state = saved(first, module, whole), first.state_dict()

    resumed, rest = one_weight(), trainer_at(steps=1000, epochs=10, epoch=8)
    again = ExponentialMovingAverage("auto")
    again.setup(rest, resumed, "fit")
    again.on_load_checkpoint(rest, resumed, checkpoint)
    again.load_state_dict(state)
    again.on_train_start(rest, resumed)
    step(again, resumed, rest, 2.0)
    step(first, module, whole, 2.0)
    assert averaged(again, resumed, rest) == averaged(first, module, whole)


def two_blocks():
    """A frozen block under one that trains with its statistics and one that trains without."""
    module = nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(3)))
    module[0].requires_grad_(False)
    module[0].eval()
    module[2][1].eval()
    return module


def test_only_what_trains_is_kept_twice():
    module, trainer = two_blocks(), trainer_at()
    names = set(saved(started(module, 0.5, trainer), module, trainer)["unaveraged"])
    weights = {f"{block}.{name}" for block in (1, 2) for name in ("0.weight", "0.bias", "1.weight", "1.bias")}
    assert names == weights | {f"1.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


def test_statistics_that_follow_the_batches_are_averaged_and_their_count_is_not():
    module, trainer = two_blocks(), trainer_at()
    ema = started(module, 0.9, trainer)
    module(torch.tensor([[1.0, 2.0], [3.0, 5.0], [-1.0, 0.0]]))
    ema.on_train_batch_end(trainer, module)
    own, state = module.state_dict(), saved(ema, module, trainer)["state_dict"]
    torch.testing.assert_close(state["1.1.running_mean"], 9 / 11 * own["1.1.running_mean"])
    torch.testing.assert_close(state["1.1.running_var"], 2 / 11 + 9 / 11 * own["1.1.running_var"])
    assert int(state["1.1.num_batches_tracked"]) == 1
    assert state["2.1.running_mean"] is not own["1.1.running_mean"]
    assert torch.equal(state["2.1.running_mean"], torch.zeros(2))


def test_validation_within_training_sees_the_mean_and_training_goes_on_with_its_own():
    module, trainer = one_weight(), trainer_at()
    ema = started(module, 0.5, trainer)
    step(ema, module, trainer, 1.1)
    weight = module.weight
    ema.on_validation_start(trainer, module)
    assert module.weight is weight
    assert weight.item() == pytest.approx(0.9)
    ema.on_validation_end(trainer, module)
    assert weight.item() == pytest.approx(1.1)
    assert averaged(ema, module, trainer) == pytest.approx(0.9)

    trainer.state.fn = TrainerFn.VALIDATING
    ema.on_validation_start(trainer, module)
    assert weight.item() == pytest.approx(1.1)


def test_a_new_phase_starts_a_new_mean():
    module, trainer = one_weight(), trainer_at()
    ema = started(module, 0.9, trainer)
    step(ema, module, trainer, 1.0)
    module.weight.data.fill_(7.0)
    ema.setup(trainer, module, "fit")
    ema.on_validation_start(trainer, module)  # Lightning's sanity check comes before the phase starts
    assert module.weight.item() == 7.0
    ema.on_validation_end(trainer, module)
    ema.on_train_start(trainer, module)
    assert averaged(ema, module, trainer) == 7.0
    step(ema, module, trainer, 8.0)
    assert averaged(ema, module, trainer) == pytest.approx(2 / 11 * 7 + 9 / 11 * 8)


def test_a_checkpoint_holds_both_and_gives_both_back(tmp_path):
    module, trainer = two_blocks(), trainer_at()
    ema = started(module, 0.9, trainer)
    for parameter in module.parameters():
        parameter.data += 1.0
    module(torch.randn(4, 2))
    ema.on_train_batch_end(trainer, module)
    torch.save({**saved(ema, module, trainer), "ema": ema.state_dict()}, tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    own = module.state_dict()
    assert all(torch.equal(own[name], value) for name, value in checkpoint["unaveraged"].items())
    assert not torch.equal(checkpoint["state_dict"]["1.0.weight"], own["1.0.weight"])

    other, again = two_blocks(), ExponentialMovingAverage(0.9)
    again.setup(trainer, other, "fit")
    other.load_state_dict(checkpoint["state_dict"])
    again.on_load_checkpoint(trainer, other, checkpoint)
    again.load_state_dict(checkpoint["ema"])
    again.on_train_start(trainer, other)
    assert all(torch.equal(own[name], value) for name, value in other.state_dict().items())
    back = saved(again, other, trainer)["state_dict"]
    assert all(torch.equal(value, back[name]) for name, value in checkpoint["state_dict"].items())
    assert again.state_dict() == ema.state_dict()
    assert again.state_dict()["steps"] == 1


@pytest.mark.parametrize("decay", [1.0, 1, -0.1, 2.0, math.nan])
def test_a_decay_that_never_forgets_or_never_remembers_is_refused(decay):
    with pytest.raises(UserError, match=rf"^ema is {decay}; it must be auto, or a number from 0 to below 1"):
        ExponentialMovingAverage(decay)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", count=12)
    return tmp_path


def checkpoint(run, name="best"):
    return torch.load(f"runs/{run}/checkpoints/{name}.ckpt", weights_only=True)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_bad_decay_is_one_line(here, capsys):
    assert main([*FIT, "--ema", "1.0"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "tl fit: ema is 1.0; it must be auto, or a number from 0 to below 1, such as 0.99"
    ]
    assert not Path("runs").exists()


PHASES = ["--phases", "[{train: head, epochs: 1}, {train: 'last:2', bn: train}]", "--trainer.max_epochs", "3"]


class StopOnce(Callback):
    """Interrupts the second phase after its first epoch, once."""

    armed = False

    def on_train_epoch_start(self, trainer, pl_module):
        if StopOnce.armed and trainer.current_epoch == 2:
            StopOnce.armed = False
            raise KeyboardInterrupt


def test_the_best_weights_are_those_that_were_validated_and_a_resumed_run_ends_with_the_same(here):
    args = [*FIT, *PHASES, "--ema", "0.5", "--soup", "3", "--trainer.num_sanity_val_steps", "1"]
    stopping = ["--trainer.callbacks+=test_averaging.StopOnce"]
    assert main([*args, *stopping, "--run_dir", "runs/whole"]) == 0
    summary = json.loads(Path("runs/whole/summary.json").read_text())

    # Without --soup in force best.ckpt is what Lightning's checkpoint callback saw validated.
    trained = "trained" if Path("runs/whole/checkpoints/trained.ckpt").is_file() else "best"
    path = f"runs/whole/checkpoints/{trained}.ckpt"
    assert main(["validate", "--run_dir", "runs/whole", "--ckpt_path", path, "--output", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text())["validation"]["loss"] == summary["monitor"]["best"]

    last = checkpoint("whole", "last")
    moved = {name for name, value in last["unaveraged"].items() if not torch.equal(value, last["state_dict"][name])}
    assert {"heads.target.1.weight", "backbone.blocks.4.0.conv_pw.weight", "backbone.bn2.running_mean"} <= moved
    frozen = ("backbone.conv_stem", "backbone.bn1", *(f"backbone.blocks.{k}." for k in range(3)))
    assert not [name for name in last["unaveraged"] if name.startswith(frozen)]
    # What a soup is made of is the mean too, although Lightning saves weights alone without asking any callback.
    ingredient = checkpoint("whole", "soup-2")
    assert same(ingredient["state_dict"], last["state_dict"])

    StopOnce.armed = True
    assert main([*args, *stopping, "--run_dir", "runs/stopped"]) == 130
    assert not StopOnce.armed
    assert main(["resume", "--run_dir", "runs/stopped"]) == 0
    resumed = checkpoint("stopped", "last")
    assert same(resumed["state_dict"], last["state_dict"])
    assert same(resumed["unaveraged"], last["unaveraged"])
    assert same(checkpoint("stopped")["state_dict"], checkpoint("whole")["state_dict"])


def test_the_mean_does_not_disturb_the_training(here):
    phases = ["--phases", "[{train: all, bn: train}]", "--trainer.max_epochs", "2"]
    assert main([*FIT, *phases, "--ema", "0.5", "--run_dir", "runs/averaged"]) == 0
    assert main([*FIT, *phases, "--run_dir", "runs/plain"]) == 0
    last = checkpoint("averaged", "last")
    plain = checkpoint("plain", "last")["state_dict"]
    assert same({**last["state_dict"], **last["unaveraged"]}, plain)
    assert not torch.equal(last["state_dict"]["heads.target.1.weight"], plain["heads.target.1.weight"])


def states(count, seed=0):
    torch.manual_seed(seed)
    return [
        {"weight": torch.randn(3, 2), "bias": torch.randn(2), "seen": torch.tensor(10 * k + 3)} for k in range(count)
    ]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_interpolation_is_that_of_each_number(alpha):
    start, end = states(2)
    between = interpolate(start, end, alpha)
    assert between.keys() == end.keys()
    for name in ("weight", "bias"):
        for value, a, b in zip(*(state[name].flatten().tolist() for state in (between, start, end)), strict=True):
            assert value == pytest.approx((1 - alpha) * a + alpha * b, abs=1e-6)
    assert between["seen"] is end["seen"]
    assert torch.equal(interpolate(start, end, 0.0)["weight"], start["weight"])
    assert torch.equal(interpolate(start, end, 1.0)["weight"], end["weight"])


def test_what_the_start_lacks_is_not_interpolated():
    start, end = states(2)
    between = interpolate({"weight": start["weight"]}, end, 0.0)
    assert torch.equal(between["weight"], start["weight"])
    assert between["bias"] is end["bias"]


def test_a_mean_is_that_of_each_number():
    several = states(3)
    average = mean(several)
    for name in ("weight", "bias"):
        for value, *parts in zip(
            *(state[name].flatten().tolist() for state in (average, *several)),
            strict=True,
        ):
            assert value == pytest.approx(sum(parts) / 3, abs=1e-6)
    assert average["seen"].dtype == torch.int64
    assert int(average["seen"]) == 3
    assert mean(several[:1])["weight"].equal(several[0]["weight"])


def number(value):
    return {"w": torch.tensor(float(value), dtype=torch.float64)}


def test_wise_ft_finds_the_best_of_the_line():
    alpha, scores = wise_ft(number(0), number(1), lambda state: -((float(state["w"]) - 0.42) ** 2))
    assert alpha == 0.4
    assert list(scores) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0] == list(ALPHAS)
    assert scores == pytest.approx({a: -((a - 0.42) ** 2) for a in ALPHAS})


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([1.0, 1.0, 1.0], 1.0),
        ([2.0, 2.0, 1.0], 0.5),
        ([2.0, 1.0, 2.0], 1.0),
        ([math.nan, 1.0, 0.0], 0.5),
        ([1.0, math.nan, 0.0], 0.0),
        ([1.0, 0.0, math.nan], 0.0),
        ([-math.inf, -math.inf, -math.inf], 1.0),
        ([math.nan, math.nan, math.nan], 1.0),
    ],
)
def test_of_equal_alphas_the_one_closest_to_the_fine_tuned_wins_and_no_number_never(values, best):
    by_place = dict(zip((0.0, 0.5, 1.0), values, strict=True))
    alpha, scores = wise_ft(number(0), number(1), lambda state: by_place[float(state["w"])], alphas=(0.0, 0.5, 1.0))
    assert alpha == best
    assert scores == pytest.approx(by_place, nan_ok=True)


def soup_by_hand(values, score):
    chosen = [0]
    for k in range(1, len(values)):
        trial = [*chosen, k]
        if score(sum(values[i] for i in trial) / len(trial)) >= score(sum(values[i] for i in chosen) / len(chosen)):
            chosen = trial
    return chosen, score(sum(values[i] for i in chosen) / len(chosen))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([4.0, 8.0, 1.0, 5.0], [0, 2, 3]),  # means tried: 6, 2.5, then 3.33 where 3.1 is best
        ([3.1, 3.1, 9.0], [0, 1]),  # an equal one is added
        ([3.1], [0]),
    ],
)
def test_a_greedy_soup_adds_what_does_not_lower_the_score(values, expected):
    def score(value):
        return -abs(value - 3.1)

    chosen, best = greedy_soup([number(value) for value in values], lambda state: score(float(state["w"])))
    assert (chosen, best) == soup_by_hand(values, score)
    assert chosen == expected


@pytest.mark.parametrize("first", [1.0, math.nan, -math.inf])
@pytest.mark.parametrize("broken", [math.nan, -math.inf])
def test_an_ingredient_that_breaks_the_soup_is_never_added(first, broken):
    scores = iter((first, broken, broken))
    chosen, best = greedy_soup([number(0), number(1), number(2)], lambda state: next(scores))
    assert chosen == [0]
    assert best == pytest.approx(first, nan_ok=True)
