"""What the environment says: variables with the prefix HEADGATE_, secrets also as files (``…_FILE``)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.settings.file import PACKAGED, ConfigurationError

WORKERS_MAX = 64
BALLAST_BYTES = 64 * 2**20
BALLAST_BYTES_MIN = 2**20

SECRETS = ("DATABASE_URL", "REDIS_URL", "CACHE_REDIS_URL", "ADMIN_TOKEN", "METRICS_TOKEN", "STATE_KEYS")


class Environment(BaseSettings):
    """Where things are and how the process speaks; what a file in git should not say."""

    model_config = SettingsConfigDict(env_prefix="HEADGATE_", extra="ignore", frozen=True, hide_input_in_errors=True)

    config: Path | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 4000
    workers: Annotated[int, Field(ge=1, le=WORKERS_MAX)] = 1
    data_dir: Path = Path("data")
    ballast_bytes: Annotated[int, Field(ge=BALLAST_BYTES_MIN, le=2**40)] = BALLAST_BYTES
    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    cache_redis_url: SecretStr | None = None
    admin_token: SecretStr | None = None
    metrics_token: SecretStr | None = None
    state_keys: SecretStr | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None, **flags: object) -> Self:
        """The environment, with ``flags`` (None: not given) over it. Raises ConfigurationError."""
        environ = os.environ if environ is None else environ
        values = {name: value for name, value in flags.items() if value is not None}
        for name in SECRETS:
            if (path := environ.get(f"HEADGATE_{name}_FILE")) and name.lower() not in values:
                try:
                    values[name.lower()] = Path(path).read_text(encoding="utf-8").strip()
                except (OSError, UnicodeDecodeError) as error:
                    raise ConfigurationError(f"HEADGATE_{name}_FILE: the file cannot be read") from error
        try:
            read = cls(**values)  # type: ignore[arg-type]
        except ValidationError as error:
            faults = error.errors(include_input=False, include_url=False)
            raise ConfigurationError(
                "\n".join(f"HEADGATE_{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in faults)
            ) from error
        if read.redis is None and read.cache_redis is not None:
            raise ConfigurationError(
                "HEADGATE_CACHE_REDIS_URL needs HEADGATE_REDIS_URL: without shared limits there is one process,"
                " whose memory is the cache"
            )
        return read

    def check_workers(self) -> None:
        """Several workers need what only one would not have to share. Raises ConfigurationError."""
        if self.workers == 1:
            return
        missing = []
        if self.redis is None:
            missing.append("HEADGATE_REDIS_URL (limits in memory would be counted by each worker for itself)")
        if self.database.startswith("sqlite"):
            missing.append("HEADGATE_DATABASE_URL=postgresql://… (a SQLite file is written by one process)")
        if missing:
            raise ConfigurationError(f"{self.workers} workers need {' and '.join(missing)}")

    @property
    def config_path(self) -> Path:
        """The file in force: the one named, else ``./headgate.yaml``, else the default in the package."""
        if self.config is not None:
            return self.config
        local = Path("headgate.yaml")
        return local if local.exists() else PACKAGED

    @property
    def database(self) -> str:
        """The ledger's URL; by default a file in the data dir."""
        return _plain(self.database_url) or f"sqlite:///{(self.data_dir / 'headgate.db').absolute()}"

    @property
    def admin(self) -> str | None:
        """A token of an administrator that is in no ledger."""
        return _plain(self.admin_token)

    @property
    def metrics(self) -> str | None:
        """The token with which ``/metrics`` is read."""
        return _plain(self.metrics_token)

    @property
    def state(self) -> str | None:
        """The keys with which kept turns are encrypted, the first of them, and decrypted."""
        return _plain(self.state_keys)

    @property
    def redis(self) -> str | None:
        """The URL of Redis, or None: limits are then kept in memory."""
        return _plain(self.redis_url)

    @property
    def cache_redis(self) -> str | None:
        """The URL of the Redis for the response cache: one of its own, else that of the limits, else None: memory."""
        return _plain(self.cache_redis_url) or self.redis


def _plain(secret: SecretStr | None) -> str | None:
    """What is empty is not set."""
    return (secret.get_secret_value() or None) if secret is not None else None
