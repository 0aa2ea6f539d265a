"""What follows from params.yaml and how the two workflow tools run it: jobs, their state, Snakemake, DVC.

Imports no steps, so that planning costs no torch; only `cli` and the Snakefile import it. Start with `jobs/graph`.
"""
