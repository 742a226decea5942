"""On a GPU that has no network: what travels there, what runs there, and what comes back."""
