"""Position encodings, the one attention function, and the models built on them.

Encodings    angles, sinusoidal, rotary, buckets; beyond the trained length: extension, rerope; their laws: analysis
Attention    attention, masks, kernels
Decoding     decoding/: greedy, drawn and beams over any decoder; encoder/prefix_decoder is RoFormer as one
Models       transformer (blocks), roformer (RoFormer, BERT), vit; layers, cross_entropy
Text models  mlm, pretrain; huggingface (weights in and out), load
Evidence     report/ (one page on any encoding), experiments/ (longer text; moved and enlarged digits)
"""
