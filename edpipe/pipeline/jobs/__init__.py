"""The jobs that follow from params.yaml: for each its command, knobs, inputs, outputs and keys.

Start with `job`, then `graph.jobs_of`; `paths` is the only place that knows where an artifact lies.
"""
