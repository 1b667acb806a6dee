"""Metrics: pure functions of numpy arrays, in float64; an empty mask gives NaN, never a number.

Modules: `depth` (relative error, delta), `points` (error after alignment, accuracy, completeness), `poses` (angles,
recall, AUC).
"""
