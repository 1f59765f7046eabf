"""How good predictions are: torchmetrics, and the bootstrap for the noise; one module per kind of target."""
