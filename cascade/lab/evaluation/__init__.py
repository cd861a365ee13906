"""Measuring quality: metrics with intervals, data sets, tables."""
