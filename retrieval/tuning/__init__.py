"""Encoders tuned for sentence vectors."""
