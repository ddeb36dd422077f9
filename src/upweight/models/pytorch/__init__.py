"""Networks of PyTorch: `TorchModel`, and how it is trained again."""
