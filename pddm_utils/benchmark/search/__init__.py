"""Ideas against the gap from simulated to real lesions, tried on validation scans and looked at once on test scans."""
