"""What is measured, compared and shown: measures of a seed, result files, comparisons, the page.

Imports neither `training` nor `steps`. Start with `result_file`, which names every number.
"""
