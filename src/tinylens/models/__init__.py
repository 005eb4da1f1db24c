"""Networks and what they are trained with: layers, losses, augmentation, optimizers (Keras)."""
