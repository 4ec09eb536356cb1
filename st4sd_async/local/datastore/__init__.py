"""The routes of the datastore and of the gateway that serves the files of instances."""
