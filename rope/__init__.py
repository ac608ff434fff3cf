"""Position encodings, the one attention function, and the models built on them.

positions/    angles, sinusoidal, rotary, buckets; beyond the trained length: extension, rerope; their laws: analysis
layers/       attention, its masks, kernels and dropout; products and norms (primitives), blocks (transformer), cross_entropy
decoding/     greedy, drawn and beam search over any decoder, which is four functions
encoder/      RoFormer and BERT, masked and prefix language model, pretraining; load, huggingface (weights in and out)
vit           the same blocks over the patches of an image
report/       one page on what any encoding does
experiments/  longer text than trained on (lengths); moved and enlarged digits
"""
