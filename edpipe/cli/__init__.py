"""The command line: `edpipe STEP …` for each step of the pipeline, and the commands that help people.

Imports everything, and nothing imports it. Start with `main`; `overview` lists the commands, `commands/` has one
module for each; `run_step` is how a step becomes a command.
"""
