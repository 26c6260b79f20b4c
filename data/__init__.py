"""From a feature file to the tensors of a window."""
