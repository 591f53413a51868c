"""One file a training stage: what its examples are, and the loss of a batch of them."""
