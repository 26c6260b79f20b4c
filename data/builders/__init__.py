"""Makes feature files: of clips, of CMU's features, of own arrays."""
