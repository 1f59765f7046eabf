"""What goes on beside the steps of a training: callbacks, checkpoints, pre-emption, batches, loggers."""
