"""What is learned: one LightningModule per kind of answer, all on the same base."""
