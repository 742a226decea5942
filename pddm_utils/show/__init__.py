"""Figures and interactive comparisons."""
