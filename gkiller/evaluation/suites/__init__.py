"""Suites: what a model does on comments that name groups of people, and on disguised ones."""
