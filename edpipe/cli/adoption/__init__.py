"""What `edpipe adopt` does: artifacts that other code made are taken over, if evidence shows that they fit.

`adopt` goes through the jobs in a mirror of the project folder, `claim` is what is asked of one artifact, `by_step`
names the module that gathers evidence for each step, and `records` reads and rewrites records, of older edpipes too.
"""
