"""What several tests share: small models with their data, reference computations, and faulty methods and models."""
