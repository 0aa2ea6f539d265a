"""The text of params.yaml: new entries, the form in which DVC writes it, a page of all knobs. Start with `insert`."""
