"""Shared by diffusion augmenters: load pretrained pipelines, fine-tune them, sample and inpaint images."""
