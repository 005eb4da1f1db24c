"""Images in: one reader a format, one decoder, the known sets, and the two types they give."""
