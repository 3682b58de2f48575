"""Every way in which the ledger's database can say no.

StoreError
├── DatabaseURLInvalid     nothing of the URL is in the text: it may hold a password
├── DriverMissing          the extra ``postgres`` is not installed
├── DatabaseUnavailable    try again later: down, locked, full, too slow
├── RowsRefused            the database answers, and will never take these rows
├── SchemaUnknown          made by a newer version, or not by Headgate
├── NameTaken
├── SecretTaken
├── NoSuchTeam
└── NoSuchKey
"""

from __future__ import annotations


class StoreError(Exception):
    """The store could not do what was asked; the text is a sentence for an operator, without secrets."""


class DatabaseURLInvalid(StoreError):
    pass


class DriverMissing(StoreError):
    pass


class DatabaseUnavailable(StoreError):
    pass


class RowsRefused(StoreError):
    pass


class SchemaUnknown(StoreError):
    pass


class NameTaken(StoreError):
    pass


class SecretTaken(StoreError):
    pass


class NoSuchTeam(StoreError):
    pass


class NoSuchKey(StoreError):
    pass
