"""Headgate: a self-hosted gateway between OpenAI SDKs and model providers."""

__version__ = "0.1.0"
