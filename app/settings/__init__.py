"""Settings: the configuration file and the environment, read once, checked, frozen."""

from app.settings.environment import Environment
from app.settings.file import ConfigurationError, load_configuration
from app.settings.model import (
    Configuration,
    LimitDefaults,
    ModelRule,
    PriceOverride,
    ServerSettings,
    StreamSettings,
    Target,
    Timeouts,
    UpstreamSettings,
)

__all__ = [
    "Configuration",
    "ConfigurationError",
    "Environment",
    "LimitDefaults",
    "ModelRule",
    "PriceOverride",
    "ServerSettings",
    "StreamSettings",
    "Target",
    "Timeouts",
    "UpstreamSettings",
    "load_configuration",
]
