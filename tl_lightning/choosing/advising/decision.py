"""The strategy rule: a small tree of questions about the facts, which can be asked, and drawn with the way taken.

All thresholds stand here. Those of size are the field's (see the sources of the questions). What is advised for few
images was set on one half of the cases of ``benchmarks/advice.py``; the other half is reported apart.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tl_lightning.choosing.advising.facts import Facts
from tl_lightning.choosing.advising.similarity import FAR, NEAR
from tl_lightning.tasks.objectives import OBJECTIVES

NOISE = 2.0  # standard errors that a difference has to exceed
BEST_OF_MANY = 3.0  # the same, where the better one was picked as the best of many stages
VERY_FEW = 100  # training images below which nothing but a head is worth fitting
VERY_FEW_PER_CLASS = 10  # on average: long tails have rare classes, which class weights are for
FEW = 1_000  # below: the head, or some layers
MANY = 100_000  # from here on: everything
ENOUGH_FOR_SCRATCH = 10_000  # training images without which random weights are never advised
EXCELLENT = 0.97  # of the probe's score, above which fine-tuning has next to nothing to gain

# The field's rules: under 1,000 images the head, up to 100,000 some layers, beyond that all; the more alike the
# source, the more stays frozen (Yosinski et al. 2014, arXiv:1411.1792); and a head that is solved first keeps good
# features from being distorted (Kumar et al. 2022, arXiv:2202.10054).
SIZE_RULE = "size rule"
MEASURED = "measured on ELPV"
SIMILARITY_RULE = "similarity rule"
LP_FT = "LP-FT"


@dataclass(frozen=True)
class Strategy:
    """Where a way through the tree ends.

    Attributes:
        name: A preset of phases.
        why: In words.
        source: The rule that it comes from.
    """

    name: str
    why: str
    source: str


@dataclass(frozen=True)
class Question:
    """A fork of the tree.

    Attributes:
        text: What is asked.
        answer: Which branch the facts take.
        number: The numbers that decide, in words.
        branches: What follows, by answer.
    """

    text: str
    answer: Callable[[Facts], str]
    number: Callable[[Facts], str]
    branches: Mapping[str, "Question | Strategy"]


@dataclass(frozen=True)
class Step:
    """A question on the way, with its answer.

    Attributes:
        question: What was asked.
        answer: The branch taken.
        number: Why, in numbers.
    """

    question: str
    answer: str
    number: str


def advise_strategy(facts: Facts) -> tuple[Strategy, tuple[Step, ...]]:
    """Follows the strategy rule.

    Args:
        facts: What is known; a question about what is not (no probe, no similarity) has a branch for that.

    Returns:
        The strategy, and the way to it.
    """
    node, path = TREE, []
    while isinstance(node, Question):
        answer = node.answer(facts)
        path.append(Step(node.text, answer, node.number(facts)))
        node = node.branches[answer]
    return node, tuple(path)


def strategies(node: "Question | Strategy | None" = None) -> Iterator[Strategy]:
    """Every end of the tree, left to right."""
    node = TREE if node is None else node
    if isinstance(node, Strategy):
        yield node
        return
    for branch in node.branches.values():
        yield from strategies(branch)


def similarity_word(facts: Facts) -> str:
    """``near``, ``medium``, ``far`` or ``unknown``."""
    return "unknown" if facts.similarity is None else facts.similarity.word


def similarity_number(facts: Facts) -> str:
    """The similarity with what its word means."""
    found = facts.similarity
    if found is None:
        return "no measure of similarity"
    unit = "deviations from the source" if found.kind == "batch_norm" else "doubt of the source's classifier"
    return f"{found.value:.2f} {unit} (near below {NEAR[found.kind]:.2f}, far from {FAR[found.kind]:.2f})"


def _weights(facts: Facts) -> str:
    return "yes" if facts.model.pretrained else "no"


def _transfer_in_doubt(facts: Facts) -> str:
    if facts.probe is None or facts.probe.gain is None or facts.images.training < ENOUGH_FOR_SCRATCH:
        return "no"
    if facts.model.named:
        return "no"
    return "yes" if facts.probe.gain.value <= NOISE * facts.probe.gain.error else "no"


def _gain(facts: Facts) -> str:
    gain = "no probe" if facts.probe is None or facts.probe.gain is None else f"gain {facts.probe.gain}"
    return f"{gain} {'' if facts.probe is None else facts.probe.what}".strip() + f", {_training(facts)}"


def _training(facts: Facts) -> str:
    return f"{facts.images.training:,} training images"


def _size(facts: Facts) -> str:
    images = facts.images
    classed = OBJECTIVES[images.problem_type].picks_one
    if images.training < VERY_FEW or (classed and images.training < VERY_FEW_PER_CLASS * images.classes):
        return "very few"
    return "few" if images.training < FEW else "many" if images.training < MANY else "very many"


def _sizes(facts: Facts) -> str:
    images = facts.images
    each = f", {images.training / images.classes:,.0f} a class" if OBJECTIVES[images.problem_type].picks_one else ""
    return _training(facts) + each


def _apart(facts: Facts) -> str:
    return "yes" if facts.images.elsewhere else "no"


def _split(facts: Facts) -> str:
    elsewhere = facts.images.elsewhere
    return f"split {elsewhere}" if elsewhere else "drawn alike, as far as is known"


def _excellent(facts: Facts) -> str:
    return "yes" if facts.probe is not None and facts.probe.pretrained.value >= EXCELLENT else "no"


def _score(facts: Facts) -> str:
    return "no probe" if facts.probe is None else f"{facts.probe.what} {facts.probe.pretrained}"


def better_below(facts: Facts) -> bool:
    """Whether the features of a lower stage are better than those of the top, beyond the noise."""
    behind = None if facts.probe is None else facts.probe.top_behind
    return behind is not None and behind.value > BEST_OF_MANY * behind.error


def _depth(facts: Facts) -> str:
    probe = facts.probe
    if probe is None or probe.best_stage is None:
        return "no probe of the depth"
    return f"best after {probe.best_stage}, top behind by {probe.top_behind}"


_HEAD = Strategy("feature_extraction", "so few images would be learned by heart by anything larger", SIZE_RULE)
_ENOUGH = Strategy("feature_extraction", "the frozen features leave next to nothing to gain", SIZE_RULE)
_NEAR = Strategy("feature_extraction", "few images, much like those of the pretraining", SIMILARITY_RULE)
# With few of them to choose by, a head's strength is chosen badly, and lp_ft starts from that head.
_ELSEWHERE = Strategy(
    "full", "validation from elsewhere cannot choose a head's strength; learning rates do without", MEASURED
)
_LOWER = Strategy("partial", "the stages above the best one serve the source more than these images", SIMILARITY_RULE)
_SOME = Strategy("partial", "the lower stages serve these images as they are", SIMILARITY_RULE)
_CAREFUL = Strategy("lp_ft", "unlike those of the pretraining: every stage has to move, a good head first", LP_FT)
_ALL = Strategy("lp_ft", "enough images for every stage, a good head first", LP_FT)

APART = "do test images come from elsewhere (split blocks, time, group, or another domain)?"

_FEW_ALIKE = Question(
    f"is a head on frozen features excellent already, {EXCELLENT} or more?",
    _excellent,
    _score,
    {
        "yes": _ENOUGH,
        "no": Question(
            "how like the source?",
            similarity_word,
            similarity_number,
            {
                "near": Question(
                    "does a lower stage have better features than the top?",
                    lambda facts: "yes" if better_below(facts) else "no",
                    _depth,
                    {"yes": _LOWER, "no": _NEAR},
                ),
                "medium": _SOME,
                "far": _CAREFUL,
                "unknown": _SOME,
            },
        ),
    },
)

TREE: Question | Strategy = Question(
    "are there pretrained weights?",
    _weights,
    lambda facts: f"weights {facts.model.weights}",
    {
        "no": Strategy("scratch", "there is nothing to transfer", SIZE_RULE),
        "yes": Question(
            f"do the weights fail to beat random ones, with {ENOUGH_FOR_SCRATCH:,} images or more to do without?",
            _transfer_in_doubt,
            _gain,
            {
                "yes": Strategy("scratch", "the features are worth no more than random ones", SIZE_RULE),
                "no": Question(
                    f"how many images? (very few: below {VERY_FEW}, or {VERY_FEW_PER_CLASS} a class; few: below "
                    f"{FEW:,}; many: below {MANY:,})",
                    _size,
                    _sizes,
                    {
                        "very few": Question(APART, _apart, _split, {"yes": _ELSEWHERE, "no": _HEAD}),
                        "few": Question(APART, _apart, _split, {"yes": _ELSEWHERE, "no": _FEW_ALIKE}),
                        "many": Question(
                            "how like the source?",
                            similarity_word,
                            similarity_number,
                            {"near": _SOME, "medium": _ALL, "far": _CAREFUL, "unknown": _ALL},
                        ),
                        "very many": _ALL,
                    },
                ),
            },
        ),
    },
)
