"""One scan in; a reconstruction, an anomaly map and a report of how far to trust them out."""
