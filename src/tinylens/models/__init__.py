"""Keras networks, layers, losses, augmentation and optimizers."""
