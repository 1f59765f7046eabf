"""What the advice rests on: plain numbers about images, backbone, probe and machine."""

from dataclasses import dataclass

from tl_lightning.choosing.advising.similarity import Similarity


@dataclass(frozen=True)
class Images:
    """What there is to learn from.

    Attributes:
        problem_type: multiclass, ordinal, multilabel or regression.
        classes: How many classes, levels, labels or numbers.
        training: Images to train on.
        validation: Images that choose.
        test: Images that nothing here looks at; only counted.
        smallest: Training images of the rarest class, level or label; 0 for numbers.
        imbalance: How many times as many images the most frequent class has as the rarest; 1 for numbers.
        short_side: The median shorter side of (a sample of) the files, in pixels; `None` where no header can be read.
        grey: The share of them that is stored without colours.
        groups: How many groups there are, such as patients; `None` without any.
        elsewhere: What keeps test images apart from those of training: ``blocks``, ``time``, ``group`` or a split
            between domains; empty where they are drawn alike.
    """

    problem_type: str
    classes: int
    training: int
    validation: int
    test: int
    smallest: int
    imbalance: float
    short_side: int | None
    grey: float
    groups: int | None
    elsewhere: str = ""


@dataclass(frozen=True)
class Model:
    """What is transferred.

    Attributes:
        backbone: Such as ``timm/tf_efficientnet_lite0``.
        weights: Such as ``pretrained``.
        parameters: How many the backbone has.
        own_size: Side of the images that its weights were trained with.
        sizes_fixed: Whether it takes images of one size only, unless it is built for another.
        convolutions: Whether its depth consists of convolutions, rather than of attention.
        batch_norm: Whether it has BatchNorm layers.
        solvable: Whether its head alone can be solved rather than trained by epochs.
        named: Whether the user has named these weights, which then are to be used.
    """

    backbone: str
    weights: str
    parameters: int
    own_size: int
    sizes_fixed: bool
    convolutions: bool
    batch_norm: bool
    solvable: bool
    named: bool = False

    @property
    def pretrained(self) -> bool:
        """Whether the weights are anything but random."""
        return self.weights != "none"


@dataclass(frozen=True)
class Score:
    """A mean over images.

    Attributes:
        value: The mean.
        error: The standard error of the value.
    """

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}"


@dataclass(frozen=True)
class Probe:
    """What a solved head does on frozen features, on images that it has not seen.

    Attributes:
        what: What is scored: ``accuracy``, ``label accuracy`` or ``R2``; always 1 at best.
        pretrained: On the features of the weights.
        random: On those of the same architecture with random weights; `None` where that was not to be had.
        gain: How much the pretrained weights are ahead of random ones, paired by image.
        baseline: The score of always predicting the same.
        best_stage: The stage whose features did best; `None` where only the top was looked at.
        below: How many stages lie above it.
        top_behind: How much worse the top's features did than those, paired.
        stages: Every stage with its score, input to output.
        seconds: How long the heads on the top's features took to solve.
    """

    what: str
    pretrained: Score
    random: Score | None
    gain: Score | None
    baseline: float
    best_stage: str | None = None
    below: int = 0
    top_behind: Score = Score(0.0, 0.0)
    stages: tuple[tuple[str, Score], ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Speeds:
    """What an image costs on this machine, in seconds, measured on real steps of the task.

    Attributes:
        size: Side of the images in these steps.
        forward: One pass through the whole backbone, without gradients.
        train: A training step, by what trains besides the head.
        cached: A training step from the feature cache of the frozen stages below, by what trains; lacks what cannot be
            split.
    """

    size: int
    forward: float
    train: dict[str, float]
    cached: dict[str, float]


@dataclass(frozen=True)
class Machine:
    """Where it is to train.

    Attributes:
        device: In words.
        gpu: Whether it is one.
        cores: Usable ones.
        precision: What the run trains in.
    """

    device: str
    gpu: bool
    cores: int
    precision: str


@dataclass(frozen=True)
class Facts:
    """Everything that the rules look at.

    Attributes:
        images: What there is to learn from.
        model: What is transferred.
        machine: Where it trains.
        image_size: Side of the images at which the other facts were measured.
        probe: `None` where none was possible.
        similarity: `None` where there is no measure of it.
        speeds: `None` where nothing was timed.
    """

    images: Images
    model: Model
    machine: Machine
    image_size: int
    probe: Probe | None = None
    similarity: Similarity | None = None
    speeds: Speeds | None = None
