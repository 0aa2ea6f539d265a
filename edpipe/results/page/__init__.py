"""The page of one experiment: one HTML file that needs no network and runs no script.

Start with `page`; `page.html.jinja` is its template.
"""
