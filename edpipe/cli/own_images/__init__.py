"""From a folder of the user's own images to entries of params.yaml that fit them and this machine: `edpipe new`."""
