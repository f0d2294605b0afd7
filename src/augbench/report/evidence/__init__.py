"""What may be said of the differences in a table, and what they cost."""
