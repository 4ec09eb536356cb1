"""The example experiments that come with the embedded ST4SD."""
