"""Which positions read longer text, and which ViT's read digits elsewhere; each ends in a table and a picture."""
