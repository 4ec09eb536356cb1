"""One HTTP request: connections, credentials, retries, and errors. Only this package imports httpx and aiohttp."""
