"""Encodings of positions, their extensions beyond the trained length, and their laws."""
