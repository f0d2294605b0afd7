"""The command line: one thin, lazy module for each command or noun, beside the view that it prints."""
