"""Augmented views (crops, flips, colour, mixing) that are fully given by (seed, sample id, view number).

Decisions are whole numbers drawn from counters; `pixels` and `colour_pixels` apply them. Imports `datasets` and below.
Start with `spec`, then `sampling`; `batches` puts them together.
"""
