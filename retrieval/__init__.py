"""Sentence vectors: made, bettered, scored and searched.

vectors/      texts to vectors (encoding, pooling); whitening, flow; files of vectors (arrays)
tuning/       an encoder tuned for them: contrastive losses, SimCSE, CoSENT
search/       an index (index), its folder (store), commands and page over it
experiments/  the similarity grid: models x poolings x whitenings x tasks

embed is a file of texts to a file of vectors; similarity scores vectors by pairs, texts reads either.
"""
