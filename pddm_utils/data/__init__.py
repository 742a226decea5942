"""Scans: simulated and real, described by a manifest and prepared into one frame."""
