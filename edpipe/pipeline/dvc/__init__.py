"""DVC beside Snakemake: the lists that dvc.yaml runs over, and what either tool takes as current.

Start with `reconcile`, which makes the records known to Snakemake before a run; `record` makes them known to DVC after
it. `repo` is DVC's view of the folder, `lists` writes the lists, `code_file` the versions of code.
"""
