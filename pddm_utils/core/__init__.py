"""What every room uses: errors, files, settings, shipped models and results."""
