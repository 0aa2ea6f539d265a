"""Weights that others trained: fetched, checked, renamed, and matched to the classes of a dataset.

Imports `storage` and the other packages of `models`; used by the step fetch_teacher. Start with `fetch`.
"""
