"""Where and how a step runs: threads, devices, several processes, signals, progress for people.

Nothing here changes a result. Imports only `edpipe.errors`; every package above it may import it.
Start with `threads` and `device`.
"""
