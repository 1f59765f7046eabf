"""The head that belongs to some weights, and images of the classes that it tells apart."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import BACKBONE, write_images

from tl_lightning.backbones import load_source_model, preprocess_of
from tl_lightning.data.images.preparing import prepare
from tl_lightning.errors import UserError
from tl_lightning.training.forgetting import source
from tl_lightning.training.forgetting.source import open_source
from tl_lightning.training.forgetting.tables import in_a_sentence

LITE0 = {"backbone": BACKBONE[1], "weights": BACKBONE[3], "num_features": 1280}
PREPROCESS = preprocess_of(BACKBONE[1], BACKBONE[3]).with_size(64)


def opened(folder, **options):
    return open_source(str(folder), **{**LITE0, "preprocess": PREPROCESS, **options})


@pytest.fixture
def tabbies(tmp_path):
    """Noise under four names for two classes of ImageNet."""
    return write_images(tmp_path / "cats", classes=("281", "n02123045", "tabby", "Egyptian_cat"), count=2)


def line_of(*arguments, **options):
    with pytest.raises(UserError) as caught:
        opened(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_classes_of_imagenet_go_by_number_id_or_label_and_random_numbers_are_left_alone(tabbies):
    state = torch.get_rng_state()
    found = opened(tabbies)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.labels.tolist() == [281, 281, 285, 285, 281, 281, 281, 281]  # by folder: 2..., E..., n..., t...


def test_accuracy_is_that_of_the_model_as_it_was_pretrained(tmp_path):
    model = load_source_model(BACKBONE[1], BACKBONE[3]).eval()
    rng = np.random.default_rng(0)
    images = []
    for k in range(4):
        images.append(tmp_path / f"{k}.png")
        Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize((80, 80)).save(images[-1])
    prepared = torch.stack([prepare(path, PREPROCESS) for path in images])
    with torch.no_grad():
        answers = model(PREPROCESS.normalize(prepared)).argmax(1).tolist()
        features = model.forward_head(model.forward_features(PREPROCESS.normalize(prepared)), pre_logits=True)
    answers[-1] = (answers[-1] + 1) % 1000  # called wrong
    for path, answer in zip(images, answers, strict=True):
        (tmp_path / "by_class" / f"{answer}").mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "by_class" / f"{answer}" / path.name)
    order = sorted(range(4), key=lambda k: (str(answers[k]), k))
    found = opened(tmp_path / "by_class")
    assert found.labels.tolist() == [answers[k] for k in order]
    assert found.accuracy(features[order]) == 0.75


def test_where_there_are_test_images_only_they_count(tmp_path):
    write_images(tmp_path / "data" / "train", classes=("281", "285"), count=3)
    write_images(tmp_path / "data" / "test", classes=("281", "285"), count=1)
    found = opened(tmp_path / "data")
    assert found.labels.tolist() == [281, 285]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("egyptian_catt", "is no class of the source head; did you mean egyptian cat"),
        ("1000", "is no class of the source head"),
        ("crane", "may be several classes of the source; use a number"),
    ],
)
def test_a_folder_that_is_no_one_class_is_refused(tabbies, name, says):
    write_images(tabbies / "one", classes=(name,), count=1)
    (tabbies / "one" / name).rename(tabbies / name)
    (tabbies / "one").rmdir()
    assert says in line_of(tabbies)
    assert line_of(tabbies).startswith(f"forgetting.source: the folder '{name}' in {tabbies}")


def test_what_is_no_folder_of_readable_images_is_refused(tmp_path, tabbies):
    assert line_of(tmp_path / "nowhere").startswith(f"forgetting.source is '{tmp_path / 'nowhere'}': there is no such")
    (tmp_path / "empty").mkdir()
    assert line_of(tmp_path / "empty").startswith(f"forgetting.source: {tmp_path / 'empty'} is empty; ")
    (tabbies / "281" / "0.png").write_bytes(b"no image")
    assert "1 of 8 images cannot be read: " in line_of(tabbies)


def test_weights_without_a_linear_head_on_the_features_are_refused(tabbies):
    assert "have no linear head on its 7 features" in line_of(tabbies, num_features=7)


def test_a_run_that_learned_no_classes_is_refused(tabbies, tmp_path, monkeypatch):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "best.ckpt").touch()
    monkeypatch.setattr(source, "load_task", lambda path: torch.nn.Identity())
    assert f"the run {tmp_path / 'run'} did not learn classes" in line_of(tabbies, weights=str(tmp_path / "run"))


def row(stage, cka):
    return {"stage": stage, "weight_distance": 0.1, "cka": cka}


@pytest.mark.parametrize(
    ("stages", "after", "sentence"),
    [
        (
            [row("a", None), row("b", 0.7), row("c", 0.4), row("d", 0.9)],
            0.41,
            "features differ most after c; the source head would now get 41.0 % of 1,200 source images right instead "
            "of 72.0 %",
        ),
        (
            [row("a", float("nan")), row("b", 1.0)],
            0.72,
            "the source head still gets 72.0 % of 1,200 source images right",
        ),
    ],
)
def test_the_sentence(stages, after, sentence):
    record = {"images": 9, "stages": stages, "source": {"before": 0.72, "after": after, "images": 1200}}
    assert in_a_sentence(record) == sentence
    del record["source"]
    assert in_a_sentence(record) == ""
