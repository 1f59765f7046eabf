"""Facts of our own making, for rules."""

from dataclasses import replace

from tl_lightning.choosing.advising.facts import Facts, Images, Machine, Model, Probe, Score, Speeds
from tl_lightning.choosing.advising.similarity import Similarity

IMAGES = Images("multiclass", 2, 2_000, 300, 500, 600, 2.0, 300, 0.0, None)
MODEL = Model("timm/some_cnn", "pretrained", 4_000_000, 224, False, True, True, True)
PROBE = Probe("accuracy", Score(0.85, 0.01), Score(0.75, 0.01), Score(0.10, 0.01), 0.7, "top", 0)
FAR, MEDIUM, NEAR = (Similarity("batch_norm", value, (("stem", value),), 128) for value in (0.6, 0.35, 0.2))
SPEEDS = Speeds(224, 0.001, {"last:2": 0.002, "all": 0.003}, {"last:2": 0.001})
FACTS = Facts(IMAGES, MODEL, Machine("the CPU", False, 2, "32-true"), 224, PROBE, FAR, SPEEDS)


def facts(*, similarity=FAR, probe=PROBE, speeds=SPEEDS, machine=None, image_size=224, model=None, **images):
    """`FACTS` with some of them changed; what is about images by name."""
    return replace(
        FACTS,
        images=replace(IMAGES, **images),
        similarity=similarity,
        probe=probe,
        speeds=speeds,
        machine=machine or FACTS.machine,
        image_size=image_size,
        model=replace(MODEL, **(model or {})),
    )
