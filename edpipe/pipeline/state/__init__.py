"""Whether what lies on disk is what would be made now, why not, and what each artifact took.

`recorded` reads records, `staleness` compares, `artifact_checks` opens the artifacts, `judgement` puts these together.
`running` knows who is at work. Start with `staleness`.
"""
