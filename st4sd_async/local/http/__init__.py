"""The HTTP side of the embedded ST4SD; it knows routes and handlers, but no experiments or instances."""
