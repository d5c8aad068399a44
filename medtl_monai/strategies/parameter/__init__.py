"""Parameter-based transfer: which of the source weights are kept, and how hard."""
