"""Texts to vectors, and what makes vectors better without training an encoder."""
