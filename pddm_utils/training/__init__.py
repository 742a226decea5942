"""The common training loop, its checkpoints and its estimate of time and memory."""
