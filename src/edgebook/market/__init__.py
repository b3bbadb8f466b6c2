"""What the tape says: bars, indicators, levels and the regime. Pure functions of closed bars."""
