"""Closed trades of other bots as TRADES."""
