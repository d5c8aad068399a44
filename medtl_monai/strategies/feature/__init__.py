"""Feature-based transfer: features of a source and a target domain are brought together."""
