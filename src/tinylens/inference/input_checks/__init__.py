"""Input checks: how an image differs from the training images, and fixes for it."""
