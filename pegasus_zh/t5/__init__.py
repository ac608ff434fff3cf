"""mT5: the model, its objective, decoding; other people's weights in, ours out."""
