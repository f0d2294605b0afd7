"""Pure functions on arrays of labels and scores."""
