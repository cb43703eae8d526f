"""Buffers and data sets. Nothing here needs torch."""
