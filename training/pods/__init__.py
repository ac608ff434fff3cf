"""Slices of TPUs that are not here: what a training would need there, how long its step would take, and its launch.

chips            published figures of each chip              program_text   a compiled program's text, read
costs            FLOPs and bytes of one operation            collectives    seconds that chips talk to each other
bundles          one operation's instruction words           schedules      operations by what is scheduled of them
kernels          what Pallas's cost                          residuals      what a loop saves for the backward pass
lines            which line of the model an operation is     roofline       every operation of a step, and its time
memory           bytes a chip, and the compiler's refusals   compilation    compiled for a slice, and kept
plan             one training on one slice, all of this      table          a plan as text
search           many arrangements, in processes             planning       what scripts.plan shows
launching/       a training started there, on GPU hosts too, and started again

It stands on the flat engine (training/*.py), of which nothing knows this room.
"""
