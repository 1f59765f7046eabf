"""What every other room stands on: files, folders, options, processes, signals; knows nothing of learning."""
