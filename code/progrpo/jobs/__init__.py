"""What one command does from a tier's configuration to files: train, generate, evaluate, learning curves, rewards and gradients."""
