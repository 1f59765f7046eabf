import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from medical import PERSONAL, write_dicom, write_nifti
from tiny import TINY, write_tiny

from tl_lightning import load
from tl_lightning.cli import main
from tl_lightning.core.frames import Frames
from tl_lightning.data.images.containers import look_into
from tl_lightning.data.images.image_files import read_image
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.data.images.store import ImageStore
from tl_lightning.data.leaks.duplicates import find_duplicates
from tl_lightning.data.parts import Part, file_of, split_part, with_part
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess

RNG = np.random.default_rng(0)


def frames(count: int, brightness: int = 2000) -> Any:
    return RNG.normal(brightness, 400, (count, 24, 20)).clip(0, 4095).astype(np.uint16)


def pages(path: Path, *, count: int = 3, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, frames(count), photometric="minisblack", **options)
    return path


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """Two classes of six files each, of three patients, some with several frames; a volume and pages beside them."""
    for kind, brightness in (("ill", 3000), ("well", 1000)):
        for number in range(6):
            file = tmp_path / "ward" / kind / f"IM{number:04}"  # as scanners name them
            patient, count = f"{kind}{number // 2}", 1 + number % 3
            write_dicom(file, frames(count, brightness), patient=patient, bits=12, WindowCenter=2048, WindowWidth=4096)
    return tmp_path / "ward"


def test_a_choice_of_frames_is_a_word_or_a_slice_behind_a_plane() -> None:
    chosen = {"all": [0, 1, 2, 3, 4], "first": [0], "middle": [2], "1:-1": [1, 2, 3], "::2": [0, 2, 4], "-2:": [3, 4]}
    for text, numbers in chosen.items():
        assert list(Frames.parse(text).among(5)) == numbers and Frames.parse(text).plane == "axial"
        assert list(Frames.parse(f"coronal:{text}").among(5)) == numbers
    assert Frames.parse("sagittal") == Frames("sagittal", slice(None))
    for wrong in ("", "last", "5", "1:2:0", "1:2:-1", "oblique:1:2", "a:b"):
        with pytest.raises(UserError, match=r"^data.frames is '.*'; it must be all, first, middle or a slice"):
            Frames.parse(wrong)


def test_a_part_has_a_name_and_a_file_of_that_name_is_a_file(tmp_path: Path) -> None:
    volume = tmp_path / "a.nii.gz"
    assert split_part(with_part(volume, 40, "coronal")) == (volume, Part(40, "coronal"))
    assert split_part(with_part(volume, 7)) == (volume, Part(7, "axial"))
    assert file_of(tmp_path / "b#no.png") == tmp_path / "b#no.png"
    (tmp_path / "c#7").touch()
    assert split_part(tmp_path / "c#7") == (tmp_path / "c#7", None)


def test_pages_are_samples_and_thumbnails_and_masks_are_none(tmp_path: Path) -> None:
    several = pages(tmp_path / "a.tif")
    alone = pages(tmp_path / "b.tif", count=1)
    with tifffile.TiffWriter(tmp_path / "c.tif") as file:
        for kind in (0, 1, 0, 4):  # whole, reduced, whole, mask
            page = frames(1)[0] > 2000 if kind == 4 else frames(1)[0]
            file.write(page, photometric="minisblack", subfiletype=kind)
    big = pages(tmp_path / "d.tif", bigtiff=True, byteorder=">")
    found = look_into([several, alone, tmp_path / "c.tif", big, tmp_path / "gone.tif"], "all")
    names = [[part.name for part in each.parts] for each in found]
    three = [f"#{number}" for number in range(3)]
    assert names == [
        [f"a.tif{end}" for end in three],
        ["b.tif"],
        ["c.tif#0", "c.tif#2"],
        [f"d.tif{end}" for end in three],
        ["gone.tif"],
    ]
    with pytest.raises(UserError, match=r"^data.frames 5: takes none of the images in .*a\.tif$"):
        look_into([several], "5:")


def test_every_page_has_its_own_pixels(tmp_path: Path, small: ImagePreprocess) -> None:
    color = RNG.integers(0, 65536, (3, 9, 12, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "wide.tif", color, photometric="rgb")  # which PIL reads in part
    tifffile.imwrite(tmp_path / "bytes.tif", (color >> 8).astype(np.uint8), photometric="rgb")
    for number in range(3):
        wide, plain = (read_image(tmp_path / f"{name}.tif#{number}", small).pixels for name in ("wide", "bytes"))
        assert np.array_equal(wide, (color[number] / 257).round().astype(np.uint8))
        assert np.array_equal(plain, color[number] >> 8)
    for name in ("wide", "bytes"):
        with pytest.raises(Exception, match=r"^it has no page 3: there are 3, counted from 0$"):
            read_image(tmp_path / f"{name}.tif#3", small)


def test_patients_and_files_are_never_on_two_sides(ward: Path, small: ImagePreprocess) -> None:
    pages(ward / "well" / "scan.tif", count=4)
    write_nifti(ward / "well" / "brain.nii.gz", frames(6))
    data = ImageDataModule(str(ward), small.to_dict(), num_workers=0, frames="coronal")
    groups = data.samples.groups
    assert groups is not None and not any(word in "".join(groups) for word in PERSONAL)
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not {*groups[data.splits[one]]} & {*groups[data.splits[other]]}


def test_frames_that_are_asked_for_are_listed_in_order(ward: Path, small: ImagePreprocess) -> None:
    write_nifti(ward / "well" / "brain.nii.gz", frames(6))
    data = ImageDataModule(str(ward), small.to_dict(), num_workers=0)
    names = [path.name for path in data.samples.paths if path.parent.name == "well"]
    assert names[:7] == ["IM0000", "IM0001#0", "IM0001#1", "IM0002#0", "IM0002#1", "IM0002#2", "IM0003"]
    assert names[12:] == [f"brain.nii.gz#axial:{number}" for number in range(20)]
    assert data.notes()[0].startswith("9 files hold 40 images, each of which is a sample; those of a file stay in one")
    assert data.notes()[1].startswith("black and white are each file's own: its window, or its smallest")
    assert len(data.samples) == 2 * 12 + 20 and len(data.samples.labels) == len(data.samples)
    middle = ImageDataModule(str(ward), small.to_dict(), num_workers=0, frames="sagittal:middle")
    assert [path.name for path in middle.samples.paths][-1] == "brain.nii.gz#sagittal:3"
    assert middle.prepared["frames"] == "sagittal:middle" and len(middle.samples) == 13
    assert len(set(np.asarray(middle.samples.groups))) == 7


def test_groups_are_what_was_asked_for(ward: Path, small: ImagePreprocess) -> None:
    def groups(**asked: Any) -> int | None:
        found = ImageDataModule(str(ward), small.to_dict(), num_workers=0, **asked).samples.groups
        return None if found is None else len(np.unique(found))

    assert groups() == 6
    assert groups(group_by="study") == groups(group_by="file") == 12
    assert groups(group_by="file", frames="first") is None  # each would be of one image: a stratified split
    for file in (ward / "ill").iterdir():
        write_dicom(file, frames(2), patient="well0")
    for file in (ward / "well").iterdir():
        write_dicom(file, frames(2), patient="well0")
    with pytest.raises(UserError) as error:
        groups()
    assert str(error.value) == (
        f"all images of {ward} are of one patient, so there is none to test on; if they are not, say --data.group_by "
        "study or file"
    )
    with pytest.raises(UserError, match=r"^data.group_by is 'ward'; it must be patient, study, file$"):
        groups(group_by="ward")


def test_a_table_names_slices_with_labels_of_their_own(ward: Path, small: ImagePreprocess) -> None:
    write_nifti(ward / "a.nii.gz", frames(6))
    write_nifti(ward / "b.nii.gz", frames(6))
    rows = [f"{name}.nii.gz#axial:{number},{number % 2}" for name in "ab" for number in range(20)]
    (ward / "list.csv").write_text("\n".join(["image,label", *rows, "well/IM0002#1,1", "well/IM0004#0,0"]) + "\n")
    data = ImageDataModule(str(ward / "list.csv"), small.to_dict(), num_workers=0)
    assert len(data.samples) == 42 and data.samples.paths[3] == ward / "a.nii.gz#axial:3"
    assert data.samples.labels.tolist()[:4] == [0, 1, 0, 1]
    assert len(np.unique(np.asarray(data.samples.groups))) == 4
    (ward / "list.csv").write_text("image,label\nc.nii.gz#3,1\nb.nii.gz,0\n")
    with pytest.raises(UserError, match=r"do not exist: .*c\.nii\.gz#3"):
        ImageDataModule(str(ward / "list.csv"), small.to_dict(), num_workers=0)


def test_a_packed_volume_is_no_archive_and_an_archive_may_hold_some(tmp_path: Path, small: ImagePreprocess) -> None:
    volume = write_nifti(tmp_path / "brain.nii.gz", frames(6))
    clip = write_dicom(tmp_path / "IM1", frames(3))
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for kind in ("ill", "well"):
            archive.write(volume, f"{kind}/brain.nii.gz")
            archive.write(clip, f"{kind}/IM1")
    alone = ImageDataModule.parts_of(ImageDataModule.find_files(volume), small)
    packed = ImageDataModule.parts_of(ImageDataModule.find_files(tmp_path / "scans.zip"), small)
    assert [len(alone), len(packed)] == [20, 46] and alone[7].name == "brain.nii.gz#axial:7"
    assert packed[-1] == tmp_path / "scans.zip" / "well" / "brain.nii.gz#axial:19"
    assert not ImageStore.open(packed, small).broken
    for inside, outside in ((packed[-1], alone[-1]), (packed[2], Path(f"{clip}#2"))):
        assert np.array_equal(read_image(inside, small).pixels, read_image(outside, small).pixels)


def test_frames_of_one_file_are_no_copies_of_each_other_and_those_of_a_copy_are(tmp_path: Path, small: Any) -> None:
    first = write_dicom(tmp_path / "a.dcm", np.stack([frames(1)[0], frames(1)[0]]))
    (tmp_path / "b.dcm").write_bytes(first.read_bytes())
    parts = [tmp_path / f"{name}.dcm#{number}" for name in "ab" for number in range(2)]
    store = ImageStore.open(parts, small)
    assert not store.broken
    found = {(each.first, each.second, each.kind) for each in find_duplicates(parts, store)}
    assert {(0, 2, "file"), (1, 3, "file")} <= found and not any(
        (0, 1) == pair[:2] and pair[2] == "file" for pair in found
    )


def test_a_folder_of_dicom_trains_and_predicts_and_no_output_says_whose_it_was(
    ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(write_tiny(tmp_path))
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "cache"))
    options = [*TINY, "--data.source", "ward", "--data.pixel_range", "[0, 4095]", "--run_dir", "run"]
    assert main(["fit", *options, "--phases", "feature_extraction", "--trainer.max_epochs", "1"]) == 0
    data = json.loads(Path("run/summary.json").read_text())["data"]
    assert data["train"] + data["validation"] + data["test"] == 24 and data["groups"] == 6
    assert main(["predict", "--run_dir", "run", "--input", "ward", "--output", "predictions.csv"]) == 0
    paths = [line.partition(",")[0] for line in Path("predictions.csv").read_text().splitlines()[1:]]
    assert len(paths) == 24 and paths[:3] == ["ward/ill/IM0000", "ward/ill/IM0001#0", "ward/ill/IM0001#1"]
    assert [each.path for each in load("run").predict(["ward/ill/IM0002"])] == [
        f"ward/ill/IM0002#{k}" for k in range(3)
    ]
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file.parent.parent.name != "ward"]
    output = capfd.readouterr()
    said = "".join((output.out, output.err)).encode() + b"".join(file.read_bytes() for file in written)
    assert len(written) > 10 and not any(word.encode() in said for word in PERSONAL)
