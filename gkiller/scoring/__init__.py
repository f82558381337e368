"""Anything that turns comments into scores, and how it is opened."""
