"""What procedural images are drawn from: noise, shapes, defects."""
