"""The routes of the admin API, a file a resource."""
