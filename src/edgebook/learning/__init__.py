"""What the closed trades taught: closed trade to statistics, statistics to lessons, lessons to override documents."""
