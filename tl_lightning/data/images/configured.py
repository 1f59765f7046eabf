"""Transforms of torchvision, timm or the user's own, made from what a configuration says of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor

from tl_lightning.core.class_path import check_switches, one_line, resolve
from tl_lightning.core.randomness import seeded
from tl_lightning.data.dataset import Sample
from tl_lightning.data.images.following import followers
from tl_lightning.errors import UserError, nearest

Configured = Mapping[str, Any] | Sequence[Mapping[str, Any]]

KEYS = ("class_path", "init_args")
_TRIALS = 4  # one draw may be lucky


def plain(value: Any) -> Any:  # noqa: ANN401 - a configuration holds anything
    """A configuration as mappings, lists and plain values; jsonargparse leaves its own objects deep inside."""
    value = vars(value) if isinstance(value, Namespace) else value
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def canonical(configured: Configured) -> str:
    """The one text of a configuration, whatever the order of its keys: equal texts are equal transforms."""
    return json.dumps(configured, sort_keys=True)


class ConfiguredTransform:
    """One or several transforms in a row, which turn ``uint8`` pixels into ``uint8`` pixels of any height and width.

    Each gets the image as a tensor. Where boxes or masks are to follow it, torchvision's own (``transforms.v2``, and
    what derives from its ``Transform``) get the whole sample; others still get the image alone, and must leave its
    size and every pixel's place as they are.
    """

    def __init__(self, configured: Configured, *, channels: int, height: int, width: int, key: str) -> None:
        """Makes the transforms, and tries them on a few images of noise.

        Args:
            configured: A mapping with ``class_path`` (a class, or a function that makes a transform) and, where
                wanted, ``init_args``; or a list of such, applied in its order. Within ``init_args``, a mapping with
                ``class_path`` stands for an object as well.
            channels: How many channels the images to come have.
            height: Pixels of the images to try it on, from top to bottom.
            width: Pixels of the same from left to right.
            key: What an error calls the setting.

        Raises:
            UserError: If a class cannot be found or made, is no transform, fails on an image or gives anything but
                ``uint8`` pixels with as many channels.
        """
        single = isinstance(configured, Mapping)
        parts = {key: configured} if single else {f"{key}[{k}]": part for k, part in enumerate(configured)}
        if not parts:
            raise UserError(f"{key} is an empty list; give none, or transforms such as {{class_path: my.Transform}}")
        self._chain = [(where, _transform(part, where)) for where, part in parts.items()]
        noise = torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=torch.Generator())
        for trial in range(_TRIALS):
            with seeded(0, trial, 0):
                self({"image": noise})

    def __call__(self, sample: Sample) -> Sample:
        """Applies the transforms.

        Args:
            sample: Its ``image`` is ``uint8`` of shape ``(channels, height, width)``.

        Returns:
            The same sample but for the height and width of the image, and the places of what follows it.

        Raises:
            UserError: As when it was made, for an image or a draw that the trial did not have.
        """
        pixels: Tensor = sample["image"]
        result: Any = pixels
        whole = bool(followers(sample))
        for where, transform in self._chain:
            try:
                if whole and _takes_samples(transform):
                    sample = transform({**sample, "image": _as_image(result)})
                    result = sample["image"]
                else:
                    result = transform(result)
            except Exception as error:  # whatever the class raises is for its user to read
                raise UserError(
                    f"{where} fails on uint8 pixels {tuple(pixels.shape)}; {one_line(error)} (leave out Normalize: "
                    "that comes last and is the weights' own)"
                ) from error
        where = self._chain[-1][0]
        if not isinstance(result, Tensor):
            raise UserError(
                f"{where} gives {type(result).__name__}; it must give a tensor of pixels, as PILToTensor does"
            )
        if result.dtype != torch.uint8:
            raise UserError(
                f"{where} gives {result.dtype}; it must give uint8 pixels: leave out ToDtype, ToTensor and Normalize, "
                "which come last and are the weights' own"
            )
        if result.ndim != 3 or result.shape[0] != pixels.shape[0] or not result.numel():
            raise UserError(f"{where} gives shape {tuple(result.shape)}; it must be ({pixels.shape[0]}, height, width)")
        if whole and not all(_fits(follower, result) for follower in followers(sample).values()):
            raise UserError(
                f"{where} changes the size of the image, and not that of the boxes or masks in it; use a transform of "
                "torchvision.transforms.v2"
            )
        return {**sample, "image": result.as_subclass(Tensor)}


def _takes_samples(transform: object) -> bool:
    from torchvision.transforms import v2

    return isinstance(transform, v2.Transform)


def _as_image(pixels: object) -> object:
    from torchvision import tv_tensors

    return tv_tensors.Image(pixels) if isinstance(pixels, Tensor) else pixels


def _fits(follower: Tensor, pixels: Tensor) -> bool:
    from torchvision.transforms.v2 import functional

    return tuple(functional.get_size(follower)) == tuple(pixels.shape[-2:])


def _transform(configured: object, where: str) -> Callable[[Any], Any]:
    if not isinstance(configured, Mapping):
        raise UserError(f"{where} is {configured!r}; it must be a mapping with class_path and init_args")
    made: object = _made(configured, where)
    if not callable(made):
        raise UserError(f"{where}: {configured['class_path']} is no transform: it cannot be called with an image")
    return made


def _made(configured: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401 - whatever the class is
    for key in configured:
        if key not in KEYS:
            raise UserError(
                f"{where}: unknown key {key!r}{nearest(str(key), KEYS)} (keys: class_path, init_args; what the class "
                "takes goes into init_args)"
            )
    path, arguments = configured.get("class_path"), configured.get("init_args") or {}
    if not isinstance(arguments, Mapping):
        raise UserError(f"{where}.init_args is {arguments!r}; it must be a mapping of the class's arguments")
    found = resolve(path, f"{where}.class_path", example="torchvision.transforms.v2.ColorJitter")
    if not callable(found):
        raise UserError(
            f"{where}.class_path is {path!r}, which is no class; name a class, or a function that makes one"
        )
    check_switches(found, arguments, f"{where}.init_args")
    filled = {name: _filled(value, f"{where}.init_args.{name}") for name, value in arguments.items()}
    try:
        return found(**filled)
    except Exception as error:  # the class may be the user's
        raise UserError(f"{where}: {path} refuses its init_args; {one_line(error)}") from error


def _filled(value: Any, where: str) -> Any:  # noqa: ANN401 - plain data
    """An argument with objects in the place of what describes them, as in the list of a RandomApply."""
    if isinstance(value, Mapping) and "class_path" in value:
        return _made(value, where)
    if isinstance(value, list | tuple):
        return [_filled(entry, f"{where}[{position}]") for position, entry in enumerate(value)]
    return value
