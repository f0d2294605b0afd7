"""What diffusion augmenters share: bundles of pretrained weights by name, and pictures sampled from them."""
