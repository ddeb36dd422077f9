"""Per-example gradients of networks (torch): captured as factors and multiplied without being materialised."""
