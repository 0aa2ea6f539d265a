"""What `edpipe doctor` looks at: `software` what is installed, `machine` where it runs, `project` the folder.

Each check gives findings and raises nothing that a user can mend; `findings` runs them all.
"""
