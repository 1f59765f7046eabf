"""From facts to settings: every branch of the strategy rule, every setting, and what a budget costs."""

from dataclasses import replace

import pytest
from known_facts import FACTS, FAR, MEDIUM, MODEL, NEAR, PROBE, SPEEDS, facts

from tl_lightning.choosing.advising.cost import Plan, affordable, parse_budget, run_seconds
from tl_lightning.choosing.advising.decision import TREE, Question, Strategy, advise_strategy, strategies
from tl_lightning.choosing.advising.facts import Machine, Score
from tl_lightning.choosing.advising.reasons import OWN
from tl_lightning.choosing.advising.rules import advise, batch_size, epochs, image_size, top_stages
from tl_lightning.errors import UserError
from tl_lightning.finetuning.phases import PRESETS, parse_phases

EXCELLENT = replace(PROBE, pretrained=Score(0.98, 0.01))
LOWER = replace(PROBE, below=4, top_behind=Score(0.05, 0.01), best_stage="middle")
NO_GAIN = replace(PROBE, gain=Score(0.01, 0.01))


@pytest.mark.parametrize(
    ("known", "strategy"),
    [
        (facts(model={"weights": "none"}), "scratch"),
        (facts(probe=NO_GAIN, training=20_000), "scratch"),
        (facts(probe=NO_GAIN, training=9_000), "lp_ft"),  # too few to do without
        (facts(training=99), "feature_extraction"),
        (facts(training=99, elsewhere="blocks"), "full"),
        (facts(training=500, classes=51, smallest=4), "feature_extraction"),
        (facts(training=500, smallest=4), "lp_ft"),  # a rare class does not make a small set
        (facts(probe=NO_GAIN, training=20_000, model={"named": True}), "lp_ft"),  # the user wants these weights
        (facts(training=500, elsewhere="group"), "full"),
        (facts(training=1_000, elsewhere="group"), "lp_ft"),
        (facts(training=500, smallest=0, problem_type="regression"), "lp_ft"),
        (facts(training=500, probe=EXCELLENT), "feature_extraction"),
        (facts(training=500, similarity=NEAR), "feature_extraction"),
        (facts(training=500, similarity=NEAR, probe=LOWER), "partial"),
        (facts(training=500, similarity=MEDIUM), "partial"),
        (facts(training=500, similarity=FAR), "lp_ft"),
        (facts(training=500, similarity=None, probe=None), "partial"),
        (facts(training=1_000, similarity=NEAR), "partial"),
        (facts(training=99_999, similarity=FAR), "lp_ft"),
        (facts(training=100_000, similarity=NEAR), "lp_ft"),
    ],
)
def test_the_strategy(known, strategy):
    assert advise_strategy(known)[0].name == strategy


def test_every_end_of_the_tree_is_a_preset_and_every_branch_has_an_answer():
    assert {strategy.name for strategy in strategies()} <= PRESETS.keys()
    found, path = advise_strategy(FACTS)
    node = TREE
    for step in path:
        assert isinstance(node, Question)
        assert step.answer in node.branches
        node = node.branches[step.answer]
    assert node is found
    assert isinstance(node, Strategy)


def settings(known, own=None, budget=None):
    return {reason.setting: reason.value for reason in advise(known, own=own or {}, budget=budget).reasons}


def test_every_setting_has_a_reason_and_its_source():
    for reason in advise(FACTS, own={}).reasons:
        assert reason.why
        assert reason.source or reason.setting == "model.weights"


def test_what_the_rule_would_say_is_not_hidden_by_what_the_user_said():
    values = {reason.setting: reason for reason in advise(FACTS, own={"phases": "full"}).reasons}
    assert values["phases"].why.startswith("full is yours; the rule says lp_ft: ")
    budget = {reason.setting: reason for reason in advise(FACTS, own={}, budget=1).reasons}
    assert budget["phases"].why.startswith("feature_extraction is the budget's choice; the rule says lp_ft: ")


def test_a_caution_against_what_is_advised_is_silenced():
    assert settings(facts(training=400))["silence"] == ["full_on_few"]
    assert "silence" not in settings(facts(training=600))
    assert "silence" not in settings(facts(training=400, similarity=NEAR))


def test_from_scratch_there_are_no_weights():
    found = settings(facts(probe=NO_GAIN, training=20_000))
    assert (found["phases"], found["model.weights"]) == ("scratch", "none")


def test_rare_classes_are_not_made_up_for_twice():
    assert settings(facts(imbalance=10.0), {"data.sampler": "balanced"})["model.class_weights"] == "none"


def test_what_the_user_set_stays_and_is_called_theirs():
    own = {"model.lr": 0.5, "phases": "full", "data.image_size": 96, "trainer.max_epochs": 2, "ema": "auto"}
    advice = advise(FACTS, own=own, budget=1.0)
    values = {reason.setting: reason for reason in advice.reasons}
    assert {key: values[key].value for key in own} == own
    assert {values[key].source for key in own} == {OWN}
    assert (advice.plan.image_size, advice.plan.epochs, advice.plan.train) == (96, 2, "all")
    assert advice.fits is False


@pytest.mark.parametrize("training", [5, 60, 400, 5_000, 50_000, 600_000])
@pytest.mark.parametrize("similarity", [NEAR, MEDIUM, FAR, None])
@pytest.mark.parametrize("own", [{}, {"phases": "lp_ft"}, {"phases": "gradual"}, {"trainer.max_epochs": 1}])
def test_the_phases_add_up_to_the_run(training, similarity, own):
    found = settings(facts(training=training, similarity=similarity), own)
    phases = parse_phases(found["phases"], max_epochs=found["trainer.max_epochs"])
    assert sum(phase.epochs for phase in phases) == found["trainer.max_epochs"]


@pytest.mark.parametrize(
    ("training", "batch", "expected"),
    [(1_600, 32, 10), (50, 8, 40), (300_000, 128, 8), (19_999, 32, 8), (20_000, 32, 8)],
)
def test_the_length_is_bits_within_bounds(training, batch, expected):
    assert epochs(facts(training=training), "full", batch=batch) == expected
    assert epochs(facts(training=training), "scratch", batch=batch) == 3 * expected


@pytest.mark.parametrize(("training", "expected"), [(5, 4), (64, 8), (255, 16), (256, 32), (90_000, 32)])
def test_batches_of_few_images_are_small(training, expected):
    assert batch_size(facts(training=training)) == expected
    gpu = Machine("a GPU", True, 8, "bf16-mixed")
    assert batch_size(facts(training=training, machine=gpu)) == (128 if training == 90_000 else expected)


@pytest.mark.parametrize(("side", "expected"), [(None, 224), (300, 224), (168, 224), (150, 160), (40, 128)])
def test_small_images_are_not_blown_up(side, expected):
    assert image_size(facts(short_side=side).images, MODEL) == expected
    assert image_size(facts(short_side=side).images, replace(MODEL, sizes_fixed=True)) == 224


@pytest.mark.parametrize(
    ("imbalance", "expected"), [(1.0, "none"), (2.9, "none"), (3.0, "balanced"), (25.0, "effective")]
)
def test_rare_classes_are_weighed(imbalance, expected):
    assert settings(facts(imbalance=imbalance))["model.class_weights"] == expected


def test_other_answers_have_no_class_weights():
    assert "model.class_weights" not in settings(facts(problem_type="regression", smallest=0))
    assert "model.class_weights" not in settings(facts(problem_type="ordinal"))


def test_the_depth_profile_says_how_much_is_trained():
    vague = replace(LOWER, top_behind=Score(0.05, 0.02))
    assert (top_stages(facts(probe=LOWER)), top_stages(facts(probe=vague)), top_stages(facts(probe=None))) == (4, 2, 2)
    known = facts(probe=LOWER, similarity=NEAR)
    assert settings(known)["phases"] == [{"train": "last:4", "bn": "frozen"}]


def test_a_transformer_gets_small_rates():
    assert settings(facts(model={"convolutions": False}))["model.lr"] == 1e-4


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("10min", 600), ("10m", 600), ("2h", 7200), ("1h30min", 5400), ("1.5 h", 5400)]
)
def test_a_budget_is_read(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "0s", "10 minutes", "-5s", "h"])
def test_what_is_no_length_of_time_is_said(text):
    with pytest.raises(UserError, match="is no length of time"):
        parse_budget(text)


def test_the_estimate_adds_up():
    start, known = 5.0, FACTS  # 2,000 to train on, 300 for validation, 500 to test; a forward pass takes 1 ms
    last = start + 800 * 0.001
    assert run_seconds(Plan("feature_extraction", "head", 224, 1, "none"), known) == pytest.approx(last + 2_300 * 0.001)
    whole = 10 * (2_000 * 0.003 + 300 * 0.001)
    assert run_seconds(Plan("full", "all", 224, 10, "flips"), known) == pytest.approx(last + whole)
    quarter = run_seconds(Plan("full", "all", 112, 10, "flips"), known)
    assert quarter - start == pytest.approx((last + whole - start) / 4)
    kept = (2 * 2_000 + 300) * 0.001 + 10 * (2_000 + 100) * 0.001
    assert run_seconds(Plan("partial", "last:2", 224, 10, "flips"), known) == pytest.approx(last + kept)
    unkept = 10 * (2_000 * 0.002 + 300 * 0.001)
    for plan in (Plan("partial", "last:2", 224, 10, "trivial"), Plan("partial", "last:2", 224, 10, "flips")):
        speeds = SPEEDS if plan.augmentation == "trivial" else replace(SPEEDS, cached={})
        assert run_seconds(plan, facts(speeds=speeds)) == pytest.approx(last + unkept)


def test_a_budget_gives_up_epochs_then_size_then_what_trains():
    best = Plan("lp_ft", "all", 224, 10, "flips")
    full = run_seconds(best, FACTS)

    def within(budget, fixed=frozenset()):
        plan, seconds, fits = affordable(best, FACTS, budget=budget, fixed=fixed)
        assert fits is (seconds <= budget)
        return plan, fits

    assert within(full) == (best, True)
    assert within(full - 1) == (replace(best, epochs=5), True)
    plan, fits = within(35)
    assert (plan.strategy, plan.epochs, fits) == ("lp_ft", 5, True)
    assert 128 <= plan.image_size < 224
    assert within(9)[0].strategy == "partial" or within(9)[0].strategy == "feature_extraction"
    assert within(35, frozenset({"image_size"}))[0].image_size == 224
    plan, fits = within(1)
    assert (plan.train, fits) == ("head", False)
    plan, fits = within(1, frozenset({"strategy"}))
    assert (plan.train, plan.epochs, plan.image_size, fits) == ("all", 3, 128, False)


def test_what_was_given_up_is_said():
    advice = advise(FACTS, own={}, budget=25)
    assert any(text.startswith("data.image_size ") for text in advice.given_up)
    assert "the budget asks for" in next(each.why for each in advice.reasons if each.setting == "data.image_size")
    assert advise(FACTS, own={}, budget=1e6).given_up == ()


def test_the_budget_leaves_the_length_of_the_users_own_phases():
    own = {"phases": [{"train": "head", "epochs": 2}, {"train": "gradual"}], "trainer.max_epochs": 12}
    advice = advise(FACTS, own={"phases": own["phases"]}, budget=1.0)
    assert advice.plan.epochs == 10
    assert not any("epochs" in text for text in advice.given_up)
    assert advise(FACTS, own=own).plan.train == "all"
