"""The Python face: what `edpipe.<name>` gives to programs of other people; names and arguments are kept stable."""
