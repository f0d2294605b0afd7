"""Renderers of sheets: one per format."""
