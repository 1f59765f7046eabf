"""How good the answers are: torchmetrics for the figures, the bootstrap for their noise; one module per answer."""
