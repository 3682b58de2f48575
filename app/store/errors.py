"""Every way in which the ledger's database can say no.

StoreError
├── DatabaseURLInvalid     nothing of the URL is in the text: it may hold a password
├── DriverMissing          the extra ``postgres`` is not installed
├── DatabaseUnavailable    try again later: down, locked, full, too slow
├── RowsRefused            the database answers, and will never take these rows
├── SchemaUnknown          made by a newer version, or not by Headgate
├── LedgerTaken            a gateway counts limits on it in its own memory
├── BackupRefused          damaged, too new, or not to be restored over what is there
├── NameTaken
├── SecretTaken
├── LimitTaken             another rule counts the same requests already
├── LimitInvalid           what a rule says cannot be counted
├── TooManyLimits
├── NoSuchTeam
├── NoSuchKey
├── NoSuchLimit
├── NoSuchPrice
├── TooManyPrices
├── NoSuchToken            of those for the control plane
├── NoSuchAlertRule
├── TooManyAlertRules
├── NoSuchProcess
└── ProcessRuns            it would be wrong to take it for lost
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


class LedgerTaken(StoreError):
    pass


class BackupRefused(StoreError):
    pass


class NameTaken(StoreError):
    pass


class SecretTaken(StoreError):
    pass


class LimitTaken(StoreError):
    pass


class LimitInvalid(StoreError):
    pass


class TooManyLimits(StoreError):
    pass


class NoSuchTeam(StoreError):
    pass


class NoSuchKey(StoreError):
    pass


class NoSuchLimit(StoreError):
    pass


class NoSuchPrice(StoreError):
    pass


class TooManyPrices(StoreError):
    pass


class NoSuchToken(StoreError):
    pass


class NoSuchAlertRule(StoreError):
    pass


class TooManyAlertRules(StoreError):
    pass


class NoSuchProcess(StoreError):
    pass


class ProcessRuns(StoreError):
    pass
