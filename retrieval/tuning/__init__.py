"""Encoders tuned for sentence vectors, and to write as well.

simcse           by a loss over vectors alone (contrastive: SimCSE, pairs with hard negatives, CoSENT), or by labels of
                 pairs (softmax); program is its training, batches what it is given
roformer_sim     RoFormer-Sim and SimBERT, which write too: stages 1 and 2; joint_program is their training,
                 question_batches what it is given, out of the stream of examples that questions draws
columns, labels  which column of a file of pairs is what; labels of several files
examples         what simcse learns from; groups: what roformer_sim does
"""
