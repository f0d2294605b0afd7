"""Features of images from frozen backbones."""
