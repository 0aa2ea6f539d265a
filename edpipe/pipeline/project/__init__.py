"""A project folder of a user's own: the files that `edpipe init` writes there and `edpipe upgrade` renews.

Start with `files`, which says what a project consists of; `note` remembers which of it the package wrote.
"""
