"""What leaves augbench: classifiers as ONNX graphs, pools and datasets as folders that other tools read."""
