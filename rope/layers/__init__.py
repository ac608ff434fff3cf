"""What models are built of: attention and its kernels, blocks, the loss with its head."""
