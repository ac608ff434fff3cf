"""RoFormer and BERT: the model, its pretraining, weights in and out."""
