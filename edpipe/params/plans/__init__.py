"""How a student learns, as values: methods, losses, and the plans of stages that follow from them.

`method` and `loss` are what `edpipe.methods` and plugins derive from, `plan` is a stage, `curriculum` gives those of an
experiment, and `plugins` finds all methods, losses, networks and readers by name. Start with `method`.
"""
