"""Where samples are listed from: folders, tables, and sets that are known by name."""
