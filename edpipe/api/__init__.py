"""The Python face: what `import edpipe` offers to programs of one's own (docs/python_api.md, docs/export.md)."""
