"""Render cards, which are plain values, as text and HTML. No I/O."""
