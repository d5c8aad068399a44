"""Files into pixels: a reader for every format, and one door to all of them."""
