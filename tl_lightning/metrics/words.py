"""How metrics, and the tables that an evaluation may have, are called."""

WORDS = {"auroc": "AUROC", "mcc": "MCC", "r2": "R2", "f1": "F1", "macro_f1": "macro F1", "micro_f1": "micro F1"}

# The tables that an evaluation may have, and what a row of each is about.
TABLES = {"per_class": "class", "per_label": "label", "per_number": "number"}


def in_words(name: str) -> str:
    """A metric's name as people write it."""
    return WORDS.get(name, name.replace("_", " "))
