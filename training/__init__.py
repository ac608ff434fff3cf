"""The engine of every training: it knows no model and no text.

mesh, partition       one mesh of named axes; the table that says which of them cut each dimension of an array
optimizer, step       gradients, accumulated, given to optax, in one compiled program
loop                  mesh -> state -> restore -> steps, readable straight down; checkpoints, metrics
plan                  the step compiled for TPUs that are not here: does it fit?
command, ranges       how a script ends; what the numbers of a config may be
files/                written whole or not at all, one process a folder; tensors, datasets, images
experiment/           many cells, each a file, and the page that they end in
"""
