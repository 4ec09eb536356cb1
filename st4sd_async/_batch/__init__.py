"""Many launches, each started once: the journal, the sender, the reconciler and the runner of a batch."""
