"""A page and a JSON API over an index: search, similar sentences, two texts compared.

serving    from a command to a server that listens
writer     what writes sentences like a text
routes     what the API asks and gives, and the application of both (FastAPI)
page.html  the tabs, a section each; page.css, page.js
"""
