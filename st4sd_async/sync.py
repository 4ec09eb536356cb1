"""
The client for code without ``async``: the same names, arguments and results, and methods that block.

    from st4sd_async.sync import Client

    with Client("https://st4sd.example", api_key="...") as client:
        run = client.start("demo:latest", {"variables": {"scale": 2}})
        for status in client.watch(run):
            print(status)

Everything else, as errors, models, `Config` and `Launch`, is that of `st4sd_async`. ``sync.pyi`` tells type checkers
and editors what is made here when it is imported; tests/sync/stub.py writes it.
"""

from ._sync.facade import Batch, Client, Item, Run

__all__ = ["Batch", "Client", "Item", "Run"]
