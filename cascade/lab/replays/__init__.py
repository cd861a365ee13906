"""What stored runs would have become under other thresholds, without calling a model."""
