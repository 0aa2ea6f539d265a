"""The soft-label file: its layout, its writer that loses at most one block, its checks, and its readers.

Imports `encoding` and `storage`. Start with `format`; `writer.create_soft_labels` is where an interrupted dump resumes.
"""
