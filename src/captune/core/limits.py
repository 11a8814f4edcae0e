"""How much one thing out of a stranger's file may take: more than honest ones have, less than a machine has."""

from __future__ import annotations

# Bytes of one picture as it is stored: a photograph of 400 megapixels as TIFF fits.
MAX_IMAGE_BYTES = 512 * 1024 * 1024
# Bytes of one text or sidecar: some million words.
MAX_TEXT_BYTES = 16 * 1024 * 1024
# Bytes of all texts of a shard, which are in memory at once: those of 10,000 pictures have some 5 MB.
MAX_SHARD_TEXT_BYTES = 512 * 1024 * 1024
# Bytes that cells read at once may take together, in a table that holds its pictures.
MAX_BATCH_BYTES = 128 * 1024 * 1024
# Of a compressed file, beyond its first bytes: text packs 3 to 30 times; only repetition without end goes further.
MIN_UNPACKED_LIMIT = 256 * 1024 * 1024
MAX_COMPRESSION = 200
# Rows of a table: so many besides, and a few for each of its bytes; rows that differ have bytes of their own.
FREE_ROWS = 100_000
ROWS_PER_BYTE = 4


def max_rows(size: int) -> int:
    """Rows that a table whose files have `size` bytes may say it has."""
    return FREE_ROWS + ROWS_PER_BYTE * size
