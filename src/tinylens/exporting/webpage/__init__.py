"""A model as a web page that needs no server."""
