"""Flash attention in Pallas, for TPUs: weights exist a tile at a time, in vector memory alone.

call     the function: lengths padded, cut over the mesh by hand, its derivative
blocks   which part of each array a step of the grid has
kernel   what one step computes, forwards and backwards
bias     T5's relative bias and the causal mask as tiles, or as a strip that rows look their biases up in
"""
