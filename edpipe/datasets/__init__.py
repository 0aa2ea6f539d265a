"""Readers of raw data sets; each yields images with labels and splits."""
