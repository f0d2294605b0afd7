"""From a grid to what is left to do: grid, plan, splits, the datasets of a run."""
