"""One module per rule, same name: read, compute, write."""
