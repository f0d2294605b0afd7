"""Advice on one's own images: which way of making synthetic defects, if any, helps on these parts."""
