"""A network as a chain of body blocks and a head, proven to give the same output; taps on its features.

Imports `models.probe` and below; used by `models.students` and by what reads features. Start with `split`.
"""
