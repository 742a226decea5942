"""From residual to numbers: post-processing, threshold rules, metrics, statistics."""
