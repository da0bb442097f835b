"""Task sources: where tasks come from."""
