"""The data plane's face: a hardened HTTP server, a closed table of endpoints, and no framework."""
