"""From a trained model to what is shipped: ONNX graphs, int8, the parity gate, wheels."""
