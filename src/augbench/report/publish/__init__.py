"""Stores as they are published: taken out of full ones, and held to their own scores and keys."""
