"""What there is, what there was, and the way back: take, compare, plan, apply."""
