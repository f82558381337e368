"""Whole files, sealed directories, and bytes from files that anybody may have written."""
