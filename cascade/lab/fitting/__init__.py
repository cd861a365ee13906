"""Statistics of learned heads: features, logistic heads, cross-fitted calibration, scores of the unknown."""
