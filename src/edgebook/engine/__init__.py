"""What the market offers: states, scores and gates, computed from closed bars alone."""
