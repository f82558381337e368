"""Hyper-parameter search: a space of settings, trials in processes of their own, the best settings."""
