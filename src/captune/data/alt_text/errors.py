"""Why a file cannot hold alt text."""

from __future__ import annotations


class UnsupportedImage(Exception):  # not a failure: the text goes into a file beside the image
    """The file has no place for alt text, or its metadata are too damaged to be kept; the message says which."""
