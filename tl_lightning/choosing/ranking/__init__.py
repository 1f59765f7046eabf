"""Which pretrained model: scores of features that nobody trained for the task, side by side."""
