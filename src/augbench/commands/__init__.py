"""The commands by what they are for, each thin and lazy; `augbench.cli` puts them together."""
