"""Explanations: Grad-CAM and the choice of mistakes to explain."""
