"""Settings: the configuration file and the environment, read once, checked, frozen."""

from app.settings.alerts import AlertSettings, AlertTarget, EmailTarget, SMTPSettings, WebhookTarget
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
)
from app.settings.sso import SSOSettings
from app.settings.transport import ProxySettings, TLSSettings
from app.settings.upstream import BreakerSettings, Timeouts, UpstreamLimits, UpstreamSettings

__all__ = [
    "AlertSettings",
    "AlertTarget",
    "BreakerSettings",
    "CacheSettings",
    "Configuration",
    "ConfigurationError",
    "ConfigurationFile",
    "EmailTarget",
    "Environment",
    "LimitDefaults",
    "LimitValues",
    "ModelCache",
    "ModelRule",
    "PriceOverride",
    "ProxySettings",
    "SMTPSettings",
    "SSOSettings",
    "ServerSettings",
    "StreamSettings",
    "TLSSettings",
    "Target",
    "Timeouts",
    "UpstreamLimits",
    "UpstreamSettings",
    "WebhookTarget",
    "load_configuration",
    "parse_configuration",
]
