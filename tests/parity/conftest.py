"""The live comparison with the reference implementations runs where they are installed: `make parity`."""

import importlib.util

REFERENCES = ("torch", "transformers", "jieba", "rouge", "nltk")
collect_ignore_glob = [] if all(map(importlib.util.find_spec, REFERENCES)) else ["test_*.py"]
