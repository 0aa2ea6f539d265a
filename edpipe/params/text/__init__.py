"""The text of params.yaml: new entries in it, and the form in which DVC writes it. Start with `insert`."""
