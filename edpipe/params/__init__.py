"""params.yaml as typed, checked knobs: one module for each section, `schema` for the whole, `load` to read it.

Imports only `edpipe.errors`, and no torch, so that a mistake in params.yaml is reported at once; every other package
may import it. Start with `schema.Params`, then `experiment` for the knobs of methods.
"""
