"""The response cache: a saved call is exactly the call that it saved."""
