"""What a start sends: reading, checking and serialising payloads, without network access."""
