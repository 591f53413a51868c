"""Corpora into checked manifests: inputs are cut into shards, each step works shard by shard, finished shards are put together."""
