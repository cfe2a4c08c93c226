"""Training: data, baselines, one loop, checkpoints, evaluation."""
