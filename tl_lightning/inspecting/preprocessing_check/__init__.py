"""``tl check_preprocessing``: what wrong preprocessing would cost a run."""
