"""What attacks a network: our own attacks, and adapters to torchattacks and pyautoattack."""
