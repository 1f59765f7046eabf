"""Duplicates are found by what they are, however many there are, and nothing else is."""

import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor, wait

import imagehash
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from tl_lightning.core.cache_folder import building
from tl_lightning.data.images.store import ImageStore
from tl_lightning.data.leaks import (
    Duplicate,
    cached_duplicates,
    crops,
    find_duplicates,
    groups_of,
    move_leaks,
    near,
    neighbours,
    report_leaks,
    settle_leaks,
    take_fingerprints,
)
from tl_lightning.data.leaks.fingerprints import Fingerprints, thumbnail, turn
from tl_lightning.errors import UserError
from tl_lightning.experiment.tables import leak_table
from tl_lightning.preprocess.image import ImagePreprocess

SIDE = 256


@pytest.fixture
def preprocess():
    return ImagePreprocess(224, 3, 0.875, "center", "bicubic", (0.5,) * 3, (0.5,) * 3)


def drawn(seed):
    """Coarse colours under finer ones: no two alike, none symmetric."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        for n in (5, 16)
    ]
    return Image.blend(*layers, 0.35)


def as_tensor(image):
    array = np.array(image)
    return torch.from_numpy(array if array.ndim == 3 else array[:, :, None]).permute(2, 0, 1)


def near_of(images):
    """Pairs that resemblance alone links; there are no files."""
    found = find_duplicates([None] * len(images), [as_tensor(image) for image in images], indices=None)
    return [(duplicate.first, duplicate.second, duplicate.kind) for duplicate in found]


@pytest.fixture(autouse=True)
def files_without_path(monkeypatch):
    from tl_lightning.data.leaks import duplicates

    size = duplicates._size
    monkeypatch.setattr(duplicates, "_size", lambda path: None if path is None else size(path))


def test_each_kind_of_copy_is_named(tmp_path, preprocess):
    paths = [tmp_path / name for name in ("a.png", "a-again.png", "a.bmp", "a.jpg", "b.png")]
    drawn(0).save(paths[0])
    shutil.copy(paths[0], paths[1])
    drawn(0).save(paths[2])
    drawn(0).save(paths[3], quality=50)
    drawn(1).save(paths[4])
    found = find_duplicates(paths, ImageStore.open(paths, preprocess))
    assert found == [Duplicate(0, 1, "file"), Duplicate(0, 2, "pixels"), Duplicate(0, 3, "near")]


def test_files_of_one_size_are_not_taken_for_the_same(tmp_path, preprocess):
    paths = [tmp_path / "a.bmp", tmp_path / "b.bmp"]
    for seed, path in enumerate(paths):
        drawn(seed).save(path)
    assert paths[0].stat().st_size == paths[1].stat().st_size
    assert find_duplicates(paths, ImageStore.open(paths, preprocess)) == []


def test_only_files_that_can_be_read_are_looked_at(tmp_path, preprocess):
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        drawn(number // 3).save(path)
    paths[1].write_bytes(b"broken")
    store = ImageStore.open(paths, preprocess)
    assert list(store.broken) == [1]
    assert find_duplicates(paths, store, indices=np.array([0, 2, 3])) == [Duplicate(0, 2, "file")]


def test_a_file_that_is_gone_is_still_compared_by_its_pixels(tmp_path, preprocess):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        drawn(0).save(path)
    store = ImageStore.open(paths, preprocess)
    paths[1].unlink()
    assert find_duplicates(paths, store) == [Duplicate(0, 1, "pixels")]


def test_grey_saved_as_colour_has_the_same_pixels():
    grey = drawn(0).convert("L")
    assert near_of([grey, grey.convert("RGB")]) == [(0, 1, "pixels")]


def test_equal_thumbnails_of_different_pixels_are_near_but_not_the_same():
    array = np.array(drawn(0))
    other = array.copy()
    other[0, :2] = array[0, 1::-1]
    images = [Image.fromarray(array), Image.fromarray(other)]
    prints = take_fingerprints([as_tensor(image) for image in images], [0, 1])
    assert (prints.thumbnails[0] == prints.thumbnails[1]).all()
    assert near_of(images) == [(0, 1, "near")]


@pytest.mark.parametrize("quality", [30, 90])
@pytest.mark.parametrize("scale", [0.5, 1.5])
@pytest.mark.parametrize("brightness", [0.9, 1.1])
def test_reencoded_resized_and_brightened_copies_are_near(quality, scale, brightness):
    image = drawn(0)
    file = io.BytesIO()
    small = image.resize((round(SIDE * scale),) * 2, Image.Resampling.BICUBIC)
    ImageEnhance.Brightness(small).enhance(brightness).save(file, "JPEG", quality=quality)
    assert near_of([drawn(1), image, drawn(2), Image.open(file)]) == [(1, 3, "near")]


@pytest.mark.parametrize("position", range(1, 8))
def test_mirrored_and_turned_copies_are_near_in_either_order(position):
    copy = Image.fromarray(
        np.ascontiguousarray(np.moveaxis(turn(np.moveaxis(np.array(drawn(0)), 2, 0), position), 0, 2))
    )
    assert near_of([drawn(0), copy]) == [(0, 1, "near")]
    assert near_of([copy, drawn(1), drawn(0)]) == [(0, 2, "near")]


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_every_channel_counts_in_images_that_are_no_colours(channels):
    layers = [np.array(drawn(seed).convert("L")) for seed in range(channels + 1)]
    pixels = torch.from_numpy(np.stack(layers[:channels]))
    other = torch.from_numpy(np.stack([*layers[: channels - 1], layers[channels]]))
    assert thumbnail(pixels, SIDE).tolist() == np.mean(layers[:channels], axis=0).round().tolist()
    assert find_duplicates([None] * 3, [pixels, other, pixels.clone()]) == [Duplicate(0, 2, "pixels")]


def test_the_eight_positions_differ():
    thumbnail = np.arange(9, dtype=np.uint8).reshape(3, 3)
    assert len({turn(thumbnail, position).tobytes() for position in range(8)}) == 8


def test_hashes_are_those_of_the_library():
    prints = take_fingerprints([as_tensor(drawn(0))], [0])
    expected = imagehash.phash(Image.fromarray(prints.thumbnails[0])).hash.ravel()
    assert np.unpackbits(prints.hashes[:, :1].view(np.uint8)).tolist() == expected.tolist()


def test_images_that_differ_in_one_spot_are_two():
    cell = np.array(drawn(0).convert("L").resize((32, 32))) // 3 + 80
    cracked, dusty = cell.copy(), cell.copy()
    cracked[10:16, 20] -= 15
    dusty[10:15, 20] -= 15
    noisy = cell + np.random.default_rng(0).integers(-1, 2, cell.shape)
    darker = cell * 0.7 + 20
    changed = np.stack([cracked, dusty, noisy, darker]).astype(np.uint8)
    assert near.same_image(np.stack([cell] * 4), changed).tolist() == [False, True, True, True]


def test_flat_images_are_twins_only_where_their_pixels_are_equal():
    rng = np.random.default_rng(0)
    flat = [np.full((SIDE, SIDE), value, dtype=np.uint8) for value in (0, 255, 0, 120, 121)]
    dark = [rng.integers(0, 4, (SIDE, SIDE), dtype=np.uint8) for _ in range(4)]
    assert near_of([Image.fromarray(array) for array in [*flat, *dark]]) == [(0, 2, "pixels")]


def test_thousands_of_equal_images_are_one_chain_of_links():
    black = as_tensor(Image.new("L", (SIDE, SIDE)))
    pixels = [black] * 3000
    found = find_duplicates([None] * 3000, pixels)
    assert found == [Duplicate(0, index, "pixels") for index in range(1, 3000)]


def test_a_crowd_with_one_hash_is_linked_without_comparing_all_with_all(monkeypatch):
    compared = []
    same_image = near.same_image
    monkeypatch.setattr(near, "same_image", lambda a, b: compared.append(len(a)) or same_image(a, b))
    monkeypatch.setattr(near, "CROWD", 16)
    base = np.array(drawn(0).convert("L").resize((32, 32)))
    rng = np.random.default_rng(0)
    crowd = np.stack([np.clip(base + rng.integers(-1, 2, base.shape), 0, 255) for _ in range(2000)]).astype(np.uint8)
    one = take_fingerprints([as_tensor(drawn(0).convert("L"))], [0]).hashes
    pairs = list(near.near_pairs(Fingerprints(crowd, np.repeat(one, 2000, axis=0))))
    assert len(pairs) == 1999
    assert len(set(groups_of([Duplicate(i, j, "near") for i, j in pairs], 2000))) == 1
    assert sum(compared) < 2000 * 16


def test_every_pair_within_seven_bits_is_a_candidate_once():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (400, 8), dtype=np.uint64)
    for number in range(200):  # copies with 0 to 9 wrong bits, in some position
        bits = rng.choice(64, number % 10, replace=False).astype(np.uint64)
        hashes[200 + number, 0] = hashes[number, number % 8] ^ np.bitwise_or.reduce(
            np.uint64(1) << bits, initial=np.uint64(0)
        )
    prints = Fingerprints(np.zeros((400, 32, 32), dtype=np.uint8), hashes)
    blocks = near._candidates(prints, np.arange(400))
    found = [pair for block in blocks for pair in zip(*(part.tolist() for part in block), strict=True)]
    assert sorted(found) == [(i, 200 + i, i % 8) for i in range(200) if i % 10 <= 7]


def test_ranges_are_listed_in_parts_of_bounded_size(monkeypatch):
    monkeypatch.setattr(near, "_PAIRS", 4)
    low, high = np.array([3, 5, 0, 7, 2]), np.array([5, 5, 3, 8, 9])
    parts = [list(zip(a.tolist(), b.tolist(), strict=True)) for a, b in near.expand(low, high)]
    assert [len(part) for part in parts] == [2, 4, 7]
    assert [pair for part in parts for pair in part] == [(k, v) for k in range(5) for v in range(low[k], high[k])]


def cut(image, area, left, top):
    side = SIDE * area**0.5
    box = (left * (SIDE - side), top * (SIDE - side), left * (SIDE - side) + side, top * (SIDE - side) + side)
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)


@pytest.mark.parametrize(("area", "left", "top"), [(0.9, 0.0, 1.0), (0.8, 0.3, 0.6), (0.7, 1.0, 0.45)])
def test_crops_are_found_among_images_whose_features_are_close(area, left, top):
    whole = drawn(0)
    images = [drawn(1), cut(whole, area, left, top), drawn(2), whole, cut(drawn(3), 0.8, 0.5, 0.5)]
    features = np.random.default_rng(0).random((5, 8), dtype=np.float32)
    pixels = [as_tensor(image) for image in images]
    assert find_duplicates([None] * 5, pixels) == []
    assert find_duplicates([None] * 5, pixels, features=features) == [Duplicate(1, 3, "crop")]


def test_close_features_alone_make_no_crop():
    pixels = [as_tensor(drawn(seed)) for seed in range(4)]
    assert find_duplicates([None] * 4, pixels, features=np.ones((4, 8), dtype=np.float32)) == []
    assert find_duplicates([None] * 2, pixels[:1], indices=np.array([0]), features=np.ones((4, 8), np.float32)) == []


def test_what_is_hardly_smaller_is_no_crop(monkeypatch):
    pixels = [as_tensor(drawn(0)), as_tensor(cut(drawn(0), 0.99, 0.5, 0.5))]
    thumbnails = take_fingerprints(pixels, [0, 1]).thumbnails
    features = np.eye(2, 8, dtype=np.float32)
    assert list(crops.crop_pairs(pixels, np.arange(2), thumbnails, features)) == []
    monkeypatch.setattr(crops, "LARGEST", 1.0)
    assert (0, 1) in crops.crop_pairs(pixels, np.arange(2), thumbnails, features)


def test_nearest_neighbours_in_cells_are_those_of_all_pairs(monkeypatch):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 16)) * 3
    features = (centres[rng.integers(0, 60, 1500)] + rng.normal(size=(1500, 16))).astype(np.float32)
    points = neighbours.whitened(features, np.arange(1500))
    exact = neighbours.nearest(points, 3)
    monkeypatch.setattr(neighbours, "EXACT", 100)
    assert (neighbours.nearest(points, 3)[:, 0] == exact[:, 0]).mean() > 0.95
    cosines = points @ points.T
    cosines.fill_diagonal_(-2)
    assert (exact == cosines.topk(3, dim=1).indices.numpy()).all()


def test_rough_places_are_whole_pixels_of_the_thumbnail():
    whole = np.random.default_rng(0).integers(0, 256, (1, 32, 32), dtype=np.uint8)
    edges, fit = crops._rough_place(whole, whole)
    assert edges.tolist() == [[0, 0, 1, 1]]
    assert fit[0] == pytest.approx(1, abs=1e-5)


@pytest.fixture
def store(tmp_path, preprocess):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        drawn(number).save(path)
    return ImageStore.open(paths, preprocess)


def test_duplicates_are_looked_for_once(store):
    asked = []

    def find():
        asked.append(1)
        return [Duplicate(0, 2, "near")]

    assert cached_duplicates(store.folder, find) == cached_duplicates(store.folder, find) == [Duplicate(0, 2, "near")]
    assert asked == [1]


@pytest.mark.parametrize("content", ["", "[[0, 1", '[[0, 1, "alike"]]', "[[0, 1]]", "7"])
def test_a_damaged_list_of_duplicates_is_made_anew(store, content):
    (file,) = [store.folder / "duplicates-2.json"]
    file.write_text(content)
    assert cached_duplicates(store.folder, lambda: [Duplicate(1, 2, "file")]) == [Duplicate(1, 2, "file")]
    assert file.read_text() == '[[1, 2, "file"]]'


def test_of_two_processes_one_looks_for_duplicates(store, capsys):
    def never():
        raise AssertionError("it was looked for twice")

    with ThreadPoolExecutor(1) as pool:
        with building(store.folder):
            second = pool.submit(cached_duplicates, store.folder, never)
            while not wait([second], 0.05).done and "waiting for another process" not in capsys.readouterr().out:
                pass
            (store.folder / "duplicates-2.json").write_text('[[0, 1, "near"]]')
        assert second.result() == [Duplicate(0, 1, "near")]


def test_duplicates_that_cannot_be_written_down_are_still_found(tmp_path):
    assert cached_duplicates(tmp_path / "gone", lambda: [Duplicate(1, 2, "file")]) == [Duplicate(1, 2, "file")]


# What they mean


SPLITS = {"train": np.array([0, 1, 2, 9]), "val": np.array([3, 4, 8]), "test": np.array([5, 6, 7])}
TWINS = [
    Duplicate(0, 3, "file"),  # val in train
    Duplicate(3, 5, "near"),  # test in train by way of val, and in val
    Duplicate(4, 6, "pixels"),  # test in val
    Duplicate(1, 2, "near"),  # within training
]


def report(duplicates=TWINS, splits=SPLITS, labels=(0, 0, 1, 0, 1, 0, 1, 0, 0, 1)):
    paths = [f"{number}.png" for number in range(10)]
    return report_leaks(duplicates, splits, labels=np.array(labels), classes=["cat", "dog"], paths=paths)


def test_a_image_is_counted_under_the_surest_kind_that_leads_to_a_twin():
    found = report()
    assert found.across == {
        "val in train": {"file": 1},
        "test in train": {"near": 1},
        "test in val": {"pixels": 1, "near": 1},
    }
    assert found.within == {"train": {"near": 1}, "val": {}, "test": {}}
    assert found.leaking == 4


def test_examples_name_files_and_splits_the_surest_first():
    first, second, *_ = report().leaks
    assert (first.kind, first.first, first.first_in, first.second, first.second_in) == (
        "file",
        "3.png",
        "val",
        "0.png",
        "train",
    )
    assert (second.kind, second.first, second.second) == ("pixels", "6.png", "4.png")


def test_twins_of_two_labels_are_reported_wherever_they_are():
    found = report()
    assert found.relabelled == {"near": 2}
    (example,) = found.contradictions
    assert (example.first, example.first_in, example.second, example.second_in) == ("1.png", "cat", "2.png", "dog")


def test_the_table_shows_only_what_there_is():
    table = leak_table(report(), title="duplicates")
    cells = list(zip(*(list(column.cells) for column in table.columns), strict=True))
    assert cells == [
        ("of val, also in train", "1", "", "", ""),
        ("of test, also in train", "", "", "1", ""),
        ("of test, also in val", "", "1", "1", ""),
        ("twice within train", "", "", "1", ""),
        ("under two labels", "", "", "2", ""),
    ]


def test_a_report_is_plain_data():
    assert json.loads(json.dumps(report().to_dict()))["across"]["val in train"] == {"file": 1}


def test_samples_of_no_split_do_not_count():
    found = report([Duplicate(0, 3, "file")], {**SPLITS, "val": np.array([4, 8])})
    assert found.leaking == 0
    assert found.relabelled == {}


def test_moving_gives_a_group_to_training_else_to_validation():
    moved = move_leaks(SPLITS, TWINS)
    assert {name: indices.tolist() for name, indices in moved.items()} == {
        "train": [0, 1, 2, 3, 5, 9],
        "val": [4, 6, 8],
        "test": [7],
    }
    assert report(splits=moved).leaking == 0


def test_moving_never_empties_a_split():
    twins = [Duplicate(0, index, "file") for index in (5, 6, 7)]
    with pytest.raises(UserError, match="leave the test split without images: each of its 3"):
        move_leaks(SPLITS, twins)


def test_stop_names_counts_and_examples_in_one_line():
    with pytest.raises(UserError) as caught:
        settle_leaks(SPLITS, TWINS, report=report(), on_leak="stop")
    message = str(caught.value)
    assert message.startswith("1 image of val is also in train (1 file); 1 image of test is also in train (1 near)")
    assert "3.png (val) = 0.png (train)" in message
    assert "\n" not in message


def test_a_warning_leaves_the_splits_alone(capsys):
    assert settle_leaks(SPLITS, TWINS, report=report(), on_leak="warn") == SPLITS
    assert "1 image of val is also in train" in capsys.readouterr().out


def test_nothing_is_said_where_nothing_leaks(capsys):
    twins = [Duplicate(1, 2, "near")]
    for policy in ("warn", "stop", "move"):
        assert settle_leaks(SPLITS, twins, report=report(twins), on_leak=policy) == SPLITS
    assert capsys.readouterr().out == ""


def test_an_unknown_policy_is_a_mistake():
    with pytest.raises(UserError, match=r"data\.on_leak 'drop' is unknown; valid are warn, stop, move"):
        settle_leaks(SPLITS, [], report=report([]), on_leak="drop")


def test_a_group_moves_as_a_whole():
    splits = {"train": np.arange(0, 4), "val": np.arange(4, 6), "test": np.arange(6, 12)}
    groups = np.array(list("aabbccddeeff"))
    moved = move_leaks(splits, [Duplicate(0, 6, "near")], groups)
    assert {name: rows.tolist() for name, rows in moved.items()} == {
        "train": [0, 1, 2, 3, 6, 7],
        "val": [4, 5],
        "test": [8, 9, 10, 11],
    }
