"""timm classifiers: build, load device-resident images, fit, predict."""
