"""The similarity grid: models, poolings and what is done to the vectors, scored on tasks of pairs."""
