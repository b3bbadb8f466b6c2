"""Whether anything looks ahead: the future is cut off at many places, and nothing before a cut may change."""
