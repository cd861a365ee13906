"""Which experts there are, what they do and what they save; and whether another model beats one of them."""
