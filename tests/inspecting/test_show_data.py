"""``tl show_data``: the page says what is in the data, also what is broken in them."""

import base64
import csv
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from tiny import TINY, write_images, write_tiny

from tl_lightning.cli import main
from tl_lightning.core.pages.page import Bar
from tl_lightning.core.quiet import quiet
from tl_lightning.data.images.preparing import prepare
from tl_lightning.inspecting.show_data.command import DataConfiguration
from tl_lightning.inspecting.show_data.image_sizes import Header, read_headers, size_bars, size_line
from tl_lightning.inspecting.show_data.strips import choose_groups, encoded, groups_of, image_side
from tl_lightning.preprocess.image import ImagePreprocess

OWN = ImagePreprocess(32, 3, 0.8, "center", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quiet()
    return write_tiny(tmp_path)


def show(*options, output="data"):
    assert main(["show_data", *TINY, "--output", output, *options]) == 0
    return Path(f"{output}.html").read_text()


def images_of(page):
    """The images of a page by caption, in their order."""
    found = {}
    for data, caption in re.findall(r'src="data:image/\w+;base64,([^"]+)" alt="([^"]+)"', page):
        found.setdefault(caption, []).append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))))
    return found


def write_table(file, answers, *, column="label"):
    paths = sorted(Path("images").glob("*/*.png"))
    with Path(file).open("w", newline="") as lines:
        csv.writer(lines).writerows([("image", column), *zip(paths, answers, strict=True)])


def test_every_class_has_its_counts_and_its_images(here, capsys):
    page = show()
    printed = capsys.readouterr().out
    data = DataConfiguration(TINY).datamodule
    for number, name in enumerate(data.classes):
        counts = [int((data.samples.labels[data.splits[split]] == number).sum()) for split in ("train", "val", "test")]
        assert f'<h3>{name} <span class="dim">{counts[0]} in training' in page
        row = re.search(f"<tr><td>{name}</td>(.*)</tr>", page)[1]
        assert [int(count) for count in re.findall(r"</span>(\d+)<", row)] == counts
        assert re.search(rf"{name}\s+│\s+{counts[0]} │\s+{counts[1]} │\s+{counts[2]} │", printed)
    assert {caption: len(shown) for caption, shown in images_of(page).items()} == {"file": 8, "as prepared": 8}
    assert "http" not in page  # nothing is fetched from elsewhere
    assert "<script" not in page
    assert not Path("run").exists()


def test_images_are_those_that_the_model_sees_and_that_its_training_draws(here):
    page = show("--data.augmentation", "flips", "--per_class", "3")
    shown = images_of(page)
    assert {caption: len(found) for caption, found in shown.items()} == dict.fromkeys(shown, 6)
    assert list(shown) == ["file", "as prepared", "epoch 1", "epoch 2", "epoch 3"]
    data = DataConfiguration([*TINY, "--data.augmentation", "flips"]).datamodule
    data.prepare_data()
    data.setup("fit")
    names = re.findall(r'class="caption">(\w+/\w+\.png) ', page)
    training = {
        f"{data.samples.paths[index].parent.name}/{data.samples.paths[index].name}": index
        for index in data.splits["train"].tolist()
    }
    batches = list(data.train_dataloader())  # of epoch 0
    drawn = {int(i): image for batch in batches for i, image in zip(batch["index"], batch["image"], strict=True)}
    seen = 0
    for place, name in enumerate(names):
        index = training[name]  # none of another split
        expected = prepare(data.samples.paths[index], ImagePreprocess.from_dict(data.prepared))
        assert np.array_equal(shown["as prepared"][place], expected.permute(1, 2, 0))
        assert shown["file"][place].shape[:2] == (213, 256)  # 48 x 40, whole
        if index in drawn:
            assert np.array_equal(shown["epoch 1"][place], drawn[index].permute(1, 2, 0))
            seen += 1
    assert seen >= 3


def test_broken_images_are_listed_rather_than_stopped_at(here, capsys):
    Path("images/cat/3.png").write_bytes(b"no image")
    Path("images/dog/4.png").write_bytes(b"")
    page = show()
    assert "<tr><td>images/cat/3.png</td><td>not an image</td></tr>" in page
    assert "<tr><td>images/dog/4.png</td><td>empty file</td></tr>" in page
    assert "2 of 24 images cannot be read, as the page lists; tl fit stops at them" in capsys.readouterr().out
    assert "tl fit leaves them out" in show("--data.on_error", "skip")
    assert not any(name in images for images in re.findall("caption.>([^ ]+)", page) for name in ("t/3.", "g/4."))


def test_no_weights_are_asked_for(here, monkeypatch):
    def fail(*args, **options):
        raise AssertionError("a model was built")

    monkeypatch.setattr("timm.create_model", fail)
    assert "timm/test_efficientnet" in show("--model.weights", "pretrained")


def test_a_page_of_many_classes_names_those_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    names = [f"c{number:02}" for number in range(15)]
    write_images(tmp_path / "many", classes=names, count=5, size=(20, 20))
    page = show("--data.source", "many", "--per_class", "1")
    titles = re.findall(r"<h3>(\w+) ", page)
    assert len(titles) == 12
    assert (titles[0], titles[-1]) == ("c00", "c14")
    left = ", ".join(name for name in names if name not in titles)
    assert f"images are shown of 12 out of 15; left out: {left}" in capsys.readouterr().out


def test_labels_are_shown_label_by_label_and_images_without_any_too(here):
    write_table("table.csv", ["red|big", "big", "", "red"] * 6)
    page = show("--data.source", "table.csv", "--model", "MultiLabelTask", "--data.label_column", "label")
    assert re.findall(r"<h3>([\w ]+) <", page) == ["big", "red", "no label"]
    assert "big | red, 48 x 40" in page


def test_numbers_are_shown_from_low_to_high(here, capsys):
    write_table("table.csv", range(24), column="age")
    page = show("--data.source", "table.csv", "--model", "RegressionTask", "--data.label_column", "age")
    ranges = [(float(low), float(high)) for low, high in re.findall(r"<h3>age ([\d.]+) to ([\d.]+) <", page)]
    assert len(ranges) == 5
    assert [edge for pair in ranges for edge in pair] == sorted(edge for pair in ranges for edge in pair)
    assert "<h2>age in each split</h2>" in page
    assert re.search(r"age\s+│ train\s+│", capsys.readouterr().out)


def test_groups_have_all_training_images_and_no_other(here):
    data = DataConfiguration(TINY).datamodule
    groups = groups_of(data.samples, data.splits["train"])
    assert np.array_equal(np.sort(np.concatenate([group.rows for group in groups])), data.splits["train"])
    assert choose_groups(groups) == groups


def test_the_more_images_the_smaller_so_that_a_page_stays_below_ten_megabytes():
    assert (image_side(40), image_side(480), image_side(10**6)) == (256, 158, 64)
    detailed = torch.from_numpy(astronaut()).permute(2, 0, 1)
    largest = max(count * len(encoded(detailed, image_side(count))) for count in (40, 180, 480, 1800))
    assert largest * 4 / 3 < 10e6  # as base64


def test_the_header_says_how_a_turned_image_is_seen_and_whether_it_is_grey(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "broken.png").write_bytes(b"")
    paths = [tmp_path / name for name in ("plain.png", "turned.jpg", "broken.png")]
    assert read_headers(paths) == [Header(30, 20, False), Header(20, 30, True), None]


def test_only_what_can_be_decoded_has_a_header(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # which nobody writes to
    Image.new("L", (30, 20)).save(tmp_path / "page.pcx")  # PIL knows it, we do not read it
    assert read_headers([tmp_path / "pipe.png", tmp_path / "page.pcx"]) == [None, None]


def test_counts_before_copies_are_moved_are_called_so(here, capsys):
    note = "data.on_leak is move: these are the counts before that"
    assert note in show("--data.on_leak", "move")
    assert note in " ".join(capsys.readouterr().out.split())
    assert note not in show()


def test_sizes_in_a_line():
    headers = [Header(30, 20, True), Header(80, 40, False), Header(100, 100, False), Header(50, 100, False)]
    assert size_line(headers, OWN) == (
        "30x20 to 100x100 pixels, the longer side 1.75 times the shorter (median); 1 of 4 have to be enlarged to 40; "
        "25% greyscale"
    )
    assert size_line([Header(50, 50, False)], OWN) == "50x50 pixels; none is enlarged; 0% greyscale"


def test_the_models_size_stands_between_smaller_and_larger_images():
    mark = Bar("resized to 40, of which the model sees 32 x 32; smaller ones are enlarged")
    few = [Header(30, 20, True), Header(40, 40, False), Header(40, 40, False)]
    assert size_bars(few, OWN).rows == [Bar("30 x 20", [1]), mark, Bar("40 x 40", [2])]
    many = [Header(side, side + 5, False) for side in range(20, 120)]
    rows = size_bars(many, OWN).rows
    place = rows.index(mark)
    assert sum(row.counts[0] for row in rows[:place]) == 20  # those below 40
    assert sum(row.counts[0] for row in rows[place + 1 :]) == 80
    assert (rows[0].name.split()[0], rows[-1].name.split()[-1]) == ("20", "119")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--run_dir", "run"], "--run_dir has no effect here"),
        (["--output", "nowhere/data"], "--output nowhere/data: there is no folder nowhere"),
        (["--per_class", "0"], "--per_class is 0; it must be from 1 to 30"),
        (["--data.augmentation", "flip"], "did you mean"),
        (["--data.source", "nowhere"], "nowhere"),
        (["--model.backbone", "timm/test_efficientne"], "did you mean"),
        (["--data", "lightning.pytorch.LightningDataModule"], "data"),
    ],
)
def test_a_mistake_is_one_line(here, capsys, options, words):
    assert main(["show_data", *TINY, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not Path("data.html").exists()
