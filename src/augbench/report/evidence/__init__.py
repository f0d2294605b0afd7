"""Statistical evidence for the rows of a table: intervals, comparisons, variance, cost."""
