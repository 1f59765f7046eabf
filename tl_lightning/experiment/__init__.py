"""One experiment from its arguments to its run folder."""

from tl_lightning.experiment.experiment import fit, resume, run

__all__ = ["fit", "resume", "run"]
