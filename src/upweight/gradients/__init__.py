"""Per-example gradients of networks (torch): captured as factors, multiplied without being formed."""
