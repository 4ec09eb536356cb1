"""Cards, as plain values, and how they become text and HTML. No I/O."""
