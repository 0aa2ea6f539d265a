"""Importing this computes the versions of all units: jobs that are forked from a process that has done so know them."""

from edpipe.storage.code.units import unit_names
from edpipe.storage.code.versions import HERE, tokens

VERSIONS = tokens(unit_names(HERE))
