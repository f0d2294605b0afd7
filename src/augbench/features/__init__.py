"""Features of images by frozen backbones."""
