"""What models are built of.

attention      the one function; kernels says which computes it: flash/ (Pallas, for TPUs), cuDNN, or XLA
masks          segments and causality; dropout is of activations and of attention's weights
primitives     products over a mesh, norms, what the backward pass recomputes
cross_entropy  the loss with its head, a few positions at a time
transformer    blocks of attention and feed-forward, as BERT, RoFormer and ViT have them; computation: its flags
"""
