"""The page on which people correct the captions of a library: `captune edit`."""
