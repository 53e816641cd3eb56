"""One configuration in, one run out."""
