"""Each is one command, python -m scripts.wgan NAME, and ends in tables, pictures and a page."""
