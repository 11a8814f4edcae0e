"""Bulk jobs: input in shards, results in shards, and the store that keeps them."""
