"""Bulk jobs: the input in pieces, results in shards, and the store that keeps them."""
