"""Interactive figures: with a kernel and, as self-contained HTML, without one."""
