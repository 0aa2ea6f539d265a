"""DVC beside Snakemake: the lists that dvc.yaml runs over, and the exchange of what each has made.

Start with `repo`; `reconcile` is DVC to Snakemake, `record` is Snakemake to DVC, `lists` writes the lists,
`code_file` the digests of code.
"""
