"""Send requests: session, retries, engine, calls, credentials. Only engine.py and injected.py import httpx."""
