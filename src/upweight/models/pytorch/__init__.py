"""Networks of PyTorch: `TorchModel`, and how it is retrained."""
