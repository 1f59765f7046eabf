"""The advice as a file, and what of a configuration is the user's own."""

import json

import pytest
import yaml
from known_facts import FACTS

from tl_lightning.choosing.advising.own_settings import given_keys
from tl_lightning.choosing.advising.reasons import OWN, Reason
from tl_lightning.choosing.advising.recipe import MARK, check_output, comment, recipe
from tl_lightning.choosing.advising.rules import advise
from tl_lightning.errors import UserError


def test_the_file_holds_every_setting_with_its_reason_above_it():
    reasons = [
        Reason("phases", [{"train": "head", "epochs": 1}, {"train": "last:2"}], "why", "9 images", "a rule"),
        Reason("model.lr", 1e-3, "because", source="judgement"),
        Reason("trainer.max_epochs", 7, "kept as you set it", source=OWN),
    ]
    own = {"trainer.max_epochs": 7, "data.source": "my images: all", "seed_everything": 3}
    text = recipe(reasons, own, about=["a fact"], classes={})
    assert text.splitlines()[:4] == [
        f"{MARK}; tl fit --config runs it as it is.",
        "# a fact",
        "# why (9 images) [a rule]",
        "phases:",
    ]
    lines = [line.strip() for line in text.splitlines()]
    assert lines[lines.index("lr: 0.001") - 1] == "# because [judgement]"
    assert lines[lines.index("max_epochs: 7") - 1] == "# yours"
    assert yaml.safe_load(text) == {
        "phases": [{"train": "head", "epochs": 1}, {"train": "last:2"}],
        "seed_everything": 3,
        "model": {"lr": 1e-3},
        "data": {"source": "my images: all"},
        "trainer": {"max_epochs": 7},
    }


def test_a_class_of_its_own_keeps_its_settings_under_init_args():
    reasons = [Reason("model.lr", 0.5, "because")]
    text = recipe(reasons, {"model.class_path": "my.Task"}, about=[], classes={"model": "my.Task"})
    assert yaml.safe_load(text) == {"model": {"class_path": "my.Task", "init_args": {"lr": 0.5}}}


def test_all_of_an_advice_is_yaml_that_says_the_same():
    advice = advise(FACTS, own={"data.source": "elpv"}, budget=100)
    values = yaml.safe_load(recipe(advice.reasons, {"data.source": "elpv"}, about=["x: [y]"], classes={}))
    for reason in advice.reasons:
        group, _, name = reason.setting.rpartition(".")
        assert (values[group] if group else values)[name] == reason.value


def test_a_comment_names_number_and_source():
    assert comment(Reason("a", 1, "why")) == "why"
    assert comment(Reason("a", 1, "why", "3", "rule")) == "why (3) [rule]"
    assert comment(Reason("a", 1, "kept", "3", OWN)) == "yours"


def test_only_what_it_wrote_itself_is_overwritten_and_only_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check_output(None, default="advice.yaml").name == "advice.yaml"
    (tmp_path / "advice.yaml").write_text(f"{MARK}; ...\n")
    (tmp_path / "mine.yaml").write_text("model: {}\n")
    with pytest.raises(UserError, match=r"--output advice.yaml writes it anew"):
        check_output(None, default="advice.yaml")
    assert check_output("advice.yaml", default="advice.yaml").name == "advice.yaml"
    with pytest.raises(UserError, match="tl advise has not written it"):
        check_output("mine.yaml", default="advice.yaml")
    with pytest.raises(UserError, match="there is no folder nowhere"):
        check_output("nowhere/a.yaml", default="advice.yaml")


def test_settings_of_files_and_flags_are_the_users_own(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(
        "phases: [{train: head}]\nmodel: {class_path: My, init_args: {lr: 1}, weights: none}\n"
        "data:\n  source: x\ntrainer: {callbacks+: [a]}\n"
    )
    more = json.dumps({"data": {"init_args": {"image_size": 32}}})
    flags = ["--model.init_args.backbone=b", "--trainer.max_epochs", "3", "--data.augmentation.class_path", "T"]
    assert list(dict.fromkeys(given_keys(["--config", str(file), f"--config={more}", *flags, "--model", "Mine"]))) == [
        *("phases", "model.class_path", "model.weights", "model.lr", "data.source", "trainer.callbacks"),
        *("data.image_size", "model.backbone", "trainer.max_epochs", "data.augmentation"),
    ]
