"""Semi-supervised transfer: images without labels teach consistency."""
