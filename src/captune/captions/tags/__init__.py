"""Keywords of images: their vocabulary, those that captions mention, and where they are written."""
