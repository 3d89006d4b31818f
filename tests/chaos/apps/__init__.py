"""What the workers of each queue run while things fail."""
