"""The engine of every training: it knows no model and no text.

program               what a training is, as a value: from it a run, a plan, a benchmark and a test are made
mesh, partition       one mesh of named axes; the table that says which of them cut each dimension of an array
at_rest               weights and moments between steps: cut along `data` too
optimizer, step       gradients, accumulated, given to optax, in one compiled program
loop                  mesh -> state -> restore -> steps, readable straight down
checkpoints, journal  what a run keeps, and what it tells as it goes (metrics: rows, curves, speed, the bar)
peaks                 FLOP/s of devices, by their makers
launch, stopping      how a run begins, on one process or several, and how it is told to stop
pulse, ending         signs of life between the processes of a job; what is told before one ends
events, goodput       what befalls a run, in a file; what its time went to (pace: the share of waiting for data)
alerts, wandb_rows    the same told elsewhere
compiled, profile     programs kept between runs; steps traced for XProf
command, flags        how a script ends; command lines out of dataclasses; ranges: what numbers of a config may be
telling               what the library has to say, to a logger, and how it is silenced
files/                written whole or not at all, one process a folder; tensors, datasets, images
pods/                 the step compiled for TPUs that are not here: does it fit, how fast is it? and its launch there
experiment/           many cells, each a file, and the page that they end in
"""
