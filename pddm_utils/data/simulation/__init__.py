"""Simulated anatomy and lesions: everything made here is called simulated."""
