"""Whole files of texts: shards of audio and a manifest, by processes or by a Ray cluster."""
