"""Instance-based transfer: which images count, and how much."""
