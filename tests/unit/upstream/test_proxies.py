"""Which proxy an upstream is reached through, as the environment tells it."""

from __future__ import annotations

import pytest

from app.settings import ProxySettings
from app.upstream.proxies import Proxy, proxy_of

ENVIRONMENT = ProxySettings(environment=True)
URL = "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("environ", "url", "expected"),
    [
        ({}, URL, None),
        ({"HTTPS_PROXY": "http://p:3128"}, URL, Proxy("p", 3128)),
        ({"https_proxy": "http://small:1", "HTTPS_PROXY": "http://large:2"}, URL, Proxy("small", 1)),
        ({"HTTP_PROXY": "http://p:3128"}, URL, None),
        ({"HTTP_PROXY": "http://p:3128"}, "http://gpu:8000/v1", Proxy("p", 3128)),
        ({"ALL_PROXY": "p:8080"}, URL, Proxy("p", 8080)),
        ({"ALL_PROXY": "http://all:1", "HTTPS_PROXY": "http://p"}, URL, Proxy("p", 80)),
        ({"HTTPS_PROXY": "http://u%40x:p%3Aw@p:1"}, URL, Proxy("p", 1, b"Basic dUB4OnA6dw==")),
    ],
)
def test_the_variables(environ, url, expected):
    assert proxy_of(ENVIRONMENT, url, environ) == expected
    assert proxy_of(None, url, environ) is None


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_excepted"),
    [
        ("*", URL, True),
        ("openai.com", URL, True),
        (".openai.com", URL, True),
        ("*.openai.com", URL, True),
        ("API.OpenAI.com", URL, True),
        ("penai.com", URL, False),
        ("api.openai.com.evil", URL, False),
        ("other, ,api.openai.com", URL, True),
        ("api.openai.com:443", URL, True),
        ("api.openai.com:8443", URL, False),
        ("", URL, False),
        (",", URL, False),
        ("10.0.0.0/8", "https://10.1.2.3/v1", True),
        ("10.0.0.0/8", "https://11.1.2.3/v1", False),
        ("10.0.0.0/8", URL, False),
        ("10.1.2.3", "https://10.1.2.3/v1", True),
        ("0.1.2.3", "https://10.1.2.3/v1", False),
        ("fd00::/8", "https://[fd00::1]/v1", True),
        ("[fd00::1]:443", "https://[fd00::1]/v1", True),
        ("::1", "https://[::1]/v1", True),
    ],
)
def test_what_is_excepted(no_proxy, url, is_excepted):
    environ = {"ALL_PROXY": "http://p:1", "NO_PROXY": no_proxy}
    assert (proxy_of(ENVIRONMENT, url, environ) is None) == is_excepted


@pytest.mark.parametrize("text", ["socks5://p:1080", "https://p:1", "http://"])
def test_a_proxy_of_another_kind_is_refused(text):
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        proxy_of(ENVIRONMENT, URL, {"HTTPS_PROXY": text})


def test_credentials_are_not_printed():
    proxy = proxy_of(ProxySettings(url="http://p:1", user="u", password="hidden"), URL, {})
    assert proxy.authorization == b"Basic dTpoaWRkZW4="
    assert repr(proxy) == "Proxy(p:1, with credentials)"
