"""Noise, boxes, network, pipeline and training of whole-image and patched diffusion models."""
