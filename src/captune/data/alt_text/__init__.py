"""Alt text in images: a caption as XMP, IPTC and EXIF, put between the parts of a file that decoders read.

Nothing is decoded or encoded: the compressed image and all other metadata stay byte for byte.
"""
