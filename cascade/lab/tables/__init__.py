"""Outcome tables: what every model of a graph answers on labelled rows."""
