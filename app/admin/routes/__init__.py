"""The resources of the admin API, one module each."""
