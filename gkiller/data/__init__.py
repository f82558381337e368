"""The data room: sources become validated, deduplicated, split and fingerprinted data sets."""
