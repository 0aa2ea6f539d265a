"""Networks: built by name, cut into feature stages, grown as students, and started from weights that others trained.

Imports `storage`, `params` and below. Start with `zoo/build`, then `splitting/split` and `students/student`.
"""
