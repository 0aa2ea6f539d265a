"""The Python face: what `import edpipe` offers to training loops of one's own (docs/python_api.md)."""
