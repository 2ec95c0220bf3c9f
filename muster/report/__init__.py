"""What muster found, for people and for machines."""
