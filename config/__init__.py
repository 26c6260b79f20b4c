"""What can be set without touching code: where the data is, and every hyper-parameter."""
