"""Tables of papers next to our results."""
