"""The fusion benchmark: how much of an identity and of a motion survives, ours against other ways to train and fuse them."""
