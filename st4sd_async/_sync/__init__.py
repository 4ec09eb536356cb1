"""The blocking client, derived from the asynchronous one."""
