"""Images: decoded once, augmented, batched."""
