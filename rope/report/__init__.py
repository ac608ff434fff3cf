"""One page on what encodings of positions do, each picture beside the law that it checks."""
