"""Procedural image generation: noise, drawing primitives, defect shapes."""
