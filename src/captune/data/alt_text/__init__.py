"""Alt text in pictures: a caption as XMP, IPTC and EXIF, put between the parts of a file that decoders read.

Nothing is decoded or encoded: the compressed picture and all other metadata stay byte for byte.
"""
