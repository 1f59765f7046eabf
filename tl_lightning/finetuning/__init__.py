"""How a backbone is transferred: which stages train, when, at which learning rate, and what stays frozen."""
