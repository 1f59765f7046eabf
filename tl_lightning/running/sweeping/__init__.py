"""``tl sweep``: runs a W&B sweep file on this machine, or on several that share a folder, with no account."""
