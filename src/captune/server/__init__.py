"""The REST server and the web page."""
