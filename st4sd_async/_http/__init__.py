"""Send requests: session, retries, engine, calls, credentials. Only the engine imports httpx and aiohttp."""
