"""
Batches: many launches, each started exactly once.

    batch.py            `Batch`, the public class; `Item` in item.py and `Launch` in launch.py
    check.py            what is wrong with launches, before any is sent
    runner.py           one call of `Batch.run`: the tasks, and the diagram of how a launch passes through them
    sender.py           sends a launch, and adapts the number of starts in flight
    reconciler.py       resolves starts of unknown outcome; the pure rules are in reconcile_rules.py
    state.py            the states of a launch and their transitions, pure
    journal.py          the launches on disk and in memory; the SQLite schema is in schema.py
    table.py            launches joined with the properties of their runs, pure; sweep.py makes the launches of a grid
    report.py           one HTML page about a batch; report_page.py renders it with report.html
    download_request.py which key-outputs are downloaded, and where to
"""

MAX_RUNNING = 200
"""Default for the runs of a batch that may be in progress at once."""
