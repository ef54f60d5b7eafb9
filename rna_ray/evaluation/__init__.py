"""How a network is judged: what the attacker knows of its randomness, and what the defender answers."""
