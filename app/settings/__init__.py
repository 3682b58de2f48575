"""Settings: the configuration file and the environment, read once, checked, frozen."""

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

__all__ = [
    "Configuration",
    "ConfigurationError",
    "ConfigurationFile",
    "Environment",
    "LimitDefaults",
    "LimitValues",
    "ModelRule",
    "PriceOverride",
    "ServerSettings",
    "StreamSettings",
    "Target",
    "Timeouts",
    "UpstreamLimits",
    "UpstreamSettings",
    "load_configuration",
    "parse_configuration",
]
