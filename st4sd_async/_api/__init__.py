"""The endpoints of the services, one group a module."""
