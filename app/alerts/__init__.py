"""Alerts: what people want to be told of, when that is so, and how the message gets to them."""
