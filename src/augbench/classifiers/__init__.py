"""timm classifiers: build, load resident data, fit, predict."""
