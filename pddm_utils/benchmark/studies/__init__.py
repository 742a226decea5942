"""Studies: one part of the method or its training changed at a time, and the search on validation scans."""
