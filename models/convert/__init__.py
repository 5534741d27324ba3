"""From the files of other libraries to ONNX, without changing a decision."""
