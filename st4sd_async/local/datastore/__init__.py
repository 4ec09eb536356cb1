"""The routes of the datastore, and of the gateway to the files of instances."""
