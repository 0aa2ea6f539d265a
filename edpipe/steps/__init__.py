"""One module for each rule, of the same name: read, compute, write.

Steps import neither each other nor `pipeline` nor `cli`; what they compute stands in the package of its topic.
"""
