"""What scores are computed with: features, distances, the pass over images."""
