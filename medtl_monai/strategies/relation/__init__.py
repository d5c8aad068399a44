"""Relation-based transfer: what is kept is how images, classes or places relate to each other."""
