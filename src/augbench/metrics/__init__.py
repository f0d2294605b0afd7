"""Pure functions on arrays of labels and scores; `evaluate` puts them together as a record has them."""
