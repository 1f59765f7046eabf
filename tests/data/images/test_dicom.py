import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from medical import PERSONAL, item, write_dicom
from pydicom.data import get_testdata_file

from tl_lightning.data.images.dicom import read_header
from tl_lightning.data.images.image_files import quiet_decoders, read_image
from tl_lightning.data.images.pixels import BrokenImage
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)  # 12 bits in 16


def read(path: Path | str, small: ImagePreprocess, pixel_range: tuple[float, float] | None = None) -> Any:
    with quiet_decoders():
        return read_image(Path(path), small.with_pixel_range(pixel_range)).pixels


def grey(path: Path | str, small: ImagePreprocess, pixel_range: tuple[float, float] | None = None) -> Any:
    pixels = read(path, small, pixel_range)
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 1
    return pixels[:, :, 0]


def linear(values: Any, low: float, high: float) -> Any:
    return ((values - low) / (high - low) * 255).round().clip(0, 255)


def test_twelve_bits_in_sixteen_go_from_the_smallest_number_to_the_largest(tmp_path: Path, small: Any) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, bits=12)
    assert np.array_equal(grey(path, small), linear(RAMP, 0, 4080))
    assert np.array_equal(grey(path, small, (0, 4095)), linear(RAMP, 0, 4095))


def test_bits_that_do_not_belong_to_the_pixels_are_left_out(tmp_path: Path, small: Any) -> None:
    overlay = RAMP | np.where(RAMP % 64 == 0, 0x8000, 0).astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", overlay, bits=12)
    assert np.array_equal(grey(path, small, (0, 4095)), linear(RAMP, 0, 4095))


def test_a_window_counts_in_the_units_that_slope_and_intercept_make(tmp_path: Path, small: Any) -> None:
    rescaled = {"RescaleSlope": 2, "RescaleIntercept": -1024}
    hounsfield = RAMP * 2.0 - 1024
    path = write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=[40, 600], WindowWidth=[400, 1500], **rescaled)
    assert np.array_equal(grey(path, small), linear(hounsfield, 39.5 - 399 / 2, 39.5 + 399 / 2))  # the first of both
    assert np.array_equal(grey(path, small, (-160, 240)), linear(hounsfield, -160, 240))
    exact = write_dicom(
        tmp_path / "b.dcm", RAMP, WindowCenter=40, WindowWidth=400, VOILUTFunction="LINEAR_EXACT", **rescaled
    )
    assert np.array_equal(grey(exact, small), linear(hounsfield, -160, 240))
    curved = write_dicom(
        tmp_path / "c.dcm", RAMP, WindowCenter=40, WindowWidth=400, VOILUTFunction="SIGMOID", **rescaled
    )
    assert np.array_equal(grey(curved, small), (255 / (1 + np.exp(-4 * (hounsfield - 40) / 400))).round())
    step = write_dicom(tmp_path / "d.dcm", RAMP, WindowCenter=2048, WindowWidth=1)
    assert np.array_equal(grey(step, small), np.where(RAMP > 2047.5, 255, 0))
    blank = write_dicom(tmp_path / "e.dcm", RAMP, WindowCenter="", WindowWidth="")
    assert np.array_equal(grey(blank, small), linear(RAMP, 0, 4080))


def test_monochrome1_is_a_negative_of_8_and_of_16_bits(tmp_path: Path, small: Any) -> None:
    for values in (RAMP, (RAMP // 16).astype(np.uint8)):
        path = write_dicom(tmp_path / "a.dcm", values, PhotometricInterpretation="MONOCHROME1")
        assert np.array_equal(grey(path, small), 255 - linear(values, 0, values.max()))
    window = {"WindowCenter": 128, "WindowWidth": 64}
    path = write_dicom(
        tmp_path / "b.dcm", (RAMP // 16).astype(np.uint8), PhotometricInterpretation="MONOCHROME1", **window
    )
    assert grey(path, small)[0, 0] == 255 and grey(path, small)[-1, -1] == 0


def test_signed_numbers_keep_their_sign(tmp_path: Path, small: Any) -> None:
    values = RAMP.astype(np.int16) - 2048
    path = write_dicom(tmp_path / "a.dcm", values, bits=12)
    assert np.array_equal(grey(path, small, (-2048, 2047)), linear(values, -2048, 2047))


def test_a_table_of_4096_places_in_256_levels_is_read_to_its_end(tmp_path: Path, small: Any) -> None:
    table = item()
    table.add_new("LUTDescriptor", "US", [4096, 0, 8])
    table.add_new("LUTData", "US", [255 - place // 16 for place in range(4096)])
    path = write_dicom(tmp_path / "a.dcm", RAMP, bits=12, VOILUTSequence=[table], WindowCenter=1, WindowWidth=1)
    assert np.array_equal(grey(path, small), 255 - RAMP // 16)  # a table comes before a window
    modality = item()
    modality.add_new("LUTDescriptor", "US", [16, 16, 16])
    modality.add_new("LUTData", "US", [1000 * place for place in range(16)])
    path = write_dicom(tmp_path / "b.dcm", RAMP, bits=12, ModalityLUTSequence=[modality])
    expected = np.clip(RAMP.astype(int) - 16, 0, 15) * 1000
    assert np.array_equal(grey(path, small, (0, 15000)), linear(expected, 0, 15000))


def test_every_frame_is_read_by_its_own_number_and_window(tmp_path: Path, small: Any) -> None:
    frames = np.stack([RAMP, RAMP[::-1], RAMP // 2])
    own = [
        item(FrameVOILUTSequence=[item(WindowCenter=center, WindowWidth=1001)]) for center in (500.5, 1500.5, 1000.5)
    ]
    units = item(PixelValueTransformationSequence=[item(RescaleSlope=0.5, RescaleIntercept=10)])
    path = write_dicom(
        tmp_path / "a.dcm",
        frames,
        bits=12,
        PerFrameFunctionalGroupsSequence=own,
        SharedFunctionalGroupsSequence=[units],
    )
    for number, low in enumerate((0, 1000, 500)):
        expected = linear(frames[number] * 0.5 + 10, low, low + 1000)
        assert np.array_equal(grey(f"{path}#{number}", small), expected)
    with pytest.raises(BrokenImage, match=r"^it has no frame 3: there are 3, counted from 0$"):
        grey(f"{path}#3", small)


def test_colour_and_palettes(tmp_path: Path, small: Any) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3), dtype=np.uint8)
    path = write_dicom(tmp_path / "a.dcm", colors)
    assert np.array_equal(read(f"{path}#1", small), colors[1])
    places = (RAMP // 16).astype(np.uint16)  # 16-bit places of a table of 8 bits
    said: dict[str, Any] = {}
    for turn, name in enumerate(("Red", "Green", "Blue")):
        said[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        said[f"{name}PaletteColorLookupTableData"] = np.roll(np.arange(256, dtype=np.uint8), turn).tobytes()
    path = write_dicom(tmp_path / "b.dcm", places, PhotometricInterpretation="PALETTE COLOR", **said)
    assert np.array_equal(read(path, small), np.stack([places, (places - 1) % 256, (places - 2) % 256], axis=2))


# What pydicom brings along, and which of the others shows the same.
PACKAGED = {
    "MR_small.dcm": "MR_small.dcm",
    "MR_small_RLE.dcm": "MR_small.dcm",
    "MR_small_bigendian.dcm": "MR_small.dcm",
    "MR_small_implicit.dcm": "MR_small.dcm",
    "MR_small_jp2klossless.dcm": "MR_small.dcm",
    "MR_small_jpeg_ls_lossless.dcm": "MR_small.dcm",
    "SC_rgb_rle.dcm": "SC_rgb_rle.dcm",
    "SC_rgb_jpeg_gdcm.dcm": "SC_rgb_rle.dcm",  # lossless JPEG
    "SC_rgb_gdcm_KY.dcm": "SC_rgb_rle.dcm",
    "SC_rgb_rle_16bit.dcm": "SC_rgb_rle.dcm",
    "SC_ybr_full_422_uncompressed.dcm": "SC_rgb_rle.dcm",
    "SC_rgb_jpeg_dcmtk.dcm": "SC_rgb_rle.dcm",  # baseline JPEG
}


@pytest.mark.parametrize(("name", "like"), PACKAGED.items())
def test_transfer_syntaxes_give_the_same_pixels(name: str, like: str, small: ImagePreprocess) -> None:
    pixels, expected = (read(str(get_testdata_file(each)), small).astype(int) for each in (name, like))
    assert pixels.shape == expected.shape and np.abs(pixels - expected).mean() < 4
    assert np.corrcoef(pixels.ravel(), expected.ravel())[0, 1] > 0.99


def test_deflated_files_bits_and_doses(small: ImagePreprocess) -> None:
    assert read(str(get_testdata_file("image_dfl.dcm")), small).shape == (512, 512, 1)
    assert set(np.unique(read(str(get_testdata_file("liver_1frame.dcm")), small))) == {0, 255}  # one bit a pixel
    assert read(str(get_testdata_file("rtdose.dcm")) + "#14", small).max() == 255  # 32 bits


@pytest.mark.parametrize(
    ("name", "reason"),
    {
        "MR_truncated.dcm": "damaged: ",
        "test-SR.dcm": "a DICOM file without an image",
        "rtplan.dcm": "a DICOM file without an image",
        "JPGExtended.dcm": "damaged, or of a kind that is not read: its JPEG Extended (Process 2 and 4) cannot be",
    }.items(),
)
def test_what_is_no_image_or_damaged_says_why(name: str, reason: str, small: ImagePreprocess) -> None:
    with pytest.raises(BrokenImage) as error:
        read(str(get_testdata_file(name)), small)
    assert str(error.value).startswith(reason) and "\n" not in str(error.value)


def test_nothing_that_says_whose_it_is_leaves_the_reader(
    tmp_path: Path, small: Any, capfd: Any, caplog: Any, recwarn: Any
) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, patient="007")
    path.write_bytes(path.read_bytes().replace(b"19700131", b"19709931"))  # a date that pydicom warns of, by its value
    read(path, small)
    with path.open("rb") as file:
        header = read_header(file, "patient")
    said = repr(header) + "".join(capfd.readouterr()) + caplog.text + "".join(str(each.message) for each in recwarn)
    assert header.whose and not any(word in said for word in (*PERSONAL, "007", "19709931"))


def test_whose_a_file_is(tmp_path: Path) -> None:
    paths = [
        write_dicom(tmp_path / f"{number}.dcm", RAMP, patient=patient, StudyInstanceUID=study, **more)
        for number, (patient, study, more) in enumerate(
            [("1", "1.2", {}), ("1", "1.3", {}), ("1", "1.3", {"IssuerOfPatientID": "elsewhere"}), ("2", "1.3", {})]
        )
    ]
    blank = [
        write_dicom(tmp_path / f"{name}.dcm", RAMP, PatientID="", StudyInstanceUID=name) for name in ("1.7", "1.8")
    ]

    def codes(whose: Any, paths: list[Path]) -> list[bytes]:
        headers = []
        for path in paths:
            with path.open("rb") as file:
                headers.append(read_header(file, whose).whose)
        return headers

    a, b, c, d = codes("patient", paths)
    assert a == b and len({a, c, d}) == 3
    a, b, c, d = codes("study", paths)
    assert a != b and b == c == d
    assert codes("file", paths) == [b""] * 4
    assert len(set(codes("patient", blank))) == 2  # by the study where no patient is named


def test_a_missing_package_is_named(tmp_path: Path, small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError) as error:
        read(path, small)
    assert (
        str(error.value) == f"{path} is a DICOM file that needs the package pydicom: pip install 'tl_lightning[dicom]'"
    )
