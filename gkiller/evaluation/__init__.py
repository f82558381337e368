"""Metrics, intervals and thresholds; numpy only."""
