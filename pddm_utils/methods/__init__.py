"""Every method behind one protocol: fit on healthy scans, reconstruct a scan."""
