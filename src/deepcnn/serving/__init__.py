"""A trained network as a server: a page and an interface over HTTP."""
