"""What diffusion augmenters share."""
