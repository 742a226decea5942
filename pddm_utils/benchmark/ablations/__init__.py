"""Ablations: one part of the method changed at a time, on trained models, nothing chosen on test subjects."""
