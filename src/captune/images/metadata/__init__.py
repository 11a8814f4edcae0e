"""Captions in image metadata: XMP, IPTC and EXIF, written between the parts of a file that decoders read.

Nothing is decoded or encoded: the compressed image and all other metadata stay byte for byte.
"""


class UnsupportedImage(Exception):  # not a failure: the text goes into a file beside the image
    """The file has no place for alt text, or its metadata are too damaged to be kept; the message says which."""
