"""What a run came to: counts, trades, the account day by day, and the files that tell it."""
