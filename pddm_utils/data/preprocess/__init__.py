"""From raw scans to registered, bias-corrected, framed NIfTIs that a manifest lists."""
