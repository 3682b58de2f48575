"""The built-in upstream: an OpenAI-compatible model server that needs no network and no model.

First run, demonstration, load target and test double. Nothing of the gateway's own is imported but
``app.core``, so that what it is compared with cannot share its mistakes.
"""
