"""Timing that can be believed, rivals to compare with, and the scorecard."""
