"""A sample is known again by what it shows and by where it really lies."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tl_lightning.data.contents import contents, places
from tl_lightning.data.images.store import ImageStore
from tl_lightning.preprocess.image import ImagePreprocess


def test_copies_have_one_content_and_nothing_else_has(
    tmp_path: Path, small: ImagePreprocess, image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = image(tmp_path / "a.png", seed=1), image(tmp_path / "b.png", seed=2)
    copy = Path(shutil.copy(first, tmp_path / "renamed.png"))
    again = tmp_path / "again.bmp"
    Image.open(first).save(again)  # without a loss
    turned = tmp_path / "turned.png"
    Image.open(first).transpose(Image.Transpose.ROTATE_90).save(turned)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    store = ImageStore.open([first, second, copy, again, turned, broken], small)
    found = contents(store)
    assert found.dtype == np.int64
    assert found[0] == found[2] == found[3]
    assert found[5] == 0
    assert len({*found.tolist()}) == 4

    def unread(self: ImageStore, index: int) -> dict[str, Tensor]:
        raise AssertionError("what was found once is read")

    monkeypatch.setattr(ImageStore, "sample", unread)
    assert contents(store).tolist() == found.tolist()


class Words:
    """A store of another modality: a text, its length and its mask."""

    def __init__(self, folder: Path, texts: list[str]) -> None:
        self.folder, self.texts, self.key = folder, texts, "words"
        self.broken: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.texts)

    def sample(self, index: int) -> dict[str, object]:
        text = self.texts[index]
        return {"text": text, "length": len(text), "mask": torch.ones(len(text), dtype=torch.bool)}


def test_what_a_store_holds_need_not_be_images(tmp_path: Path) -> None:
    found = contents(Words(tmp_path / "store", ["one", "two", "one", "three"])).tolist()
    assert found[0] == found[2]
    assert len({*found}) == 3


def test_a_place_is_where_a_file_lies_however_its_path_is_spelled(
    tmp_path: Path, image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = image(tmp_path / "data" / "a.png")
    (tmp_path / "link").symlink_to("data")
    monkeypatch.chdir(tmp_path)
    spelled = [Path("data/a.png"), Path("./data/../link/a.png"), tmp_path / "link" / "a.png"]
    (place,) = places([path])
    assert [places([each]).tolist() for each in spelled] == [[place]] * 3
    assert places([path, path, tmp_path / "b.png"]).tolist()[:2] == [0, 0]  # which of its samples, no path can say
