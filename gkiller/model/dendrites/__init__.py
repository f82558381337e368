"""Dendrites: the layer, how a network grows them, and the only importer of perforatedai."""
