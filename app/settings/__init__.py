"""Settings: the configuration file and the environment, read once, checked, frozen."""

from app.settings.cache import CacheSettings, ModelCache
from app.settings.changes import ConfigurationFile
from app.settings.environment import Environment
from app.settings.file import ConfigurationError, load_configuration, parse_configuration
from app.settings.model import (
    Configuration,
    LimitDefaults,
    LimitValues,
    ModelRule,
    PriceOverride,
    ServerSettings,
    StreamSettings,
    Target,
    Timeouts,
    UpstreamLimits,
    UpstreamSettings,
)
from app.settings.sso import SSOSettings

__all__ = [
    "CacheSettings",
    "Configuration",
    "ConfigurationError",
    "ConfigurationFile",
    "Environment",
    "LimitDefaults",
    "LimitValues",
    "ModelCache",
    "ModelRule",
    "PriceOverride",
    "SSOSettings",
    "ServerSettings",
    "StreamSettings",
    "Target",
    "Timeouts",
    "UpstreamLimits",
    "UpstreamSettings",
    "load_configuration",
    "parse_configuration",
]
