"""Bytes in, fixed and disjoint splits of tokens out."""
