"""The benchmark: methods x data x seeds -> one tidy table, with provenance."""
