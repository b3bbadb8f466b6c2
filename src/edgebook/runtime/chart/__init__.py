"""Recorded bars as the engine sees them: facts of a span, and two ways of drawing them."""
