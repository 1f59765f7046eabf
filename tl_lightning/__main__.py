"""``python -m tl_lightning``, for where no script is installed."""

from tl_lightning.cli import entry_point

if __name__ == "__main__":
    entry_point()
