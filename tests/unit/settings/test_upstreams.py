"""How upstreams are configured: examples that hold, and mistakes that are named with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli.commands import app
from app.main.switch import compiled
from app.main.upstreams import Upstreams
from app.settings import BreakerSettings, ConfigurationError, UpstreamSettings, load_configuration
from app.settings.file import PACKAGED
from tests.unit.settings.test_file import load, refused

EXAMPLES = sorted(path for path in (Path(__file__).parents[3] / "config").glob("*.yaml"))
AZURE = "upstreams:\n  a:\n    kind: azure\n    base_url: https://n.openai.azure.com\n"
PLAIN = "upstreams:\n  a:\n    base_url: https://a.example/v1\n"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_pass_the_check(path, monkeypatch):
    from typer.testing import CliRunner

    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "OPENROUTER_API_KEY"):
        monkeypatch.setenv(name, "k")
    told = CliRunner().invoke(app, ["check", "--config", str(path)])
    assert told.exit_code == 0, told.output


def test_there_is_one_for_each_server():
    assert {path.stem for path in EXAMPLES} >= {"azure", "vllm", "ollama", "llama-cpp", "openrouter", "headgate"}


async def test_what_azure_and_openrouter_cost_is_known_by_their_addresses(tmp_path):
    keys = {"AZURE_OPENAI_API_KEY": "k", "OPENROUTER_API_KEY": "k"}
    for name, upstream, model in (
        ("azure", "azure-deployments", "gpt-4o"),
        ("openrouter", "openrouter", "openai/gpt-4o"),
    ):
        configuration = load_configuration(Path(__file__).parents[3] / f"config/{name}.yaml", keys)
        upstreams = Upstreams(tmp_path)
        pools, off = await upstreams.open(configuration, {})
        _, prices = compiled(configuration, pools, off, ())
        price = prices.price(upstream, model, None, 1_780_000_000_000)
        assert price is not None
        await upstreams.close()


def test_without_a_word_an_upstream_is_called_as_before(tmp_path):
    one = load(tmp_path, PLAIN).upstreams["a"]
    assert (one.kind, one.tls, one.proxy, one.chat_stream_usage) == ("openai", None, None, "off")
    assert one.breaker == BreakerSettings()
    assert load_configuration(PACKAGED, {}).upstreams["openai"].proxy is None


@pytest.mark.parametrize("text", ["off", '"off"'])
def test_a_bare_off_is_off(tmp_path, text):
    one = load(tmp_path, f"{PLAIN}    breaker: {text}\n    chat_stream_usage: {text}\n").upstreams["a"]
    assert (one.breaker, one.chat_stream_usage) == (None, "off")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (f"{PLAIN}    api_version: x\n", 2, "belong to kind: azure"),
        (f"{PLAIN}    deployments: true\n", 2, "belong to kind: azure"),
        (f"{AZURE}    deployments: true\n", 2, "expected api_version"),
        (f"{AZURE}    api_version: a b\n", 5, "pattern"),
        (f"{AZURE}    api_version: v\n    deployments: {{m: ../x}}\n", 6, "names of deployments"),
        (AZURE.replace(".com", ".com/openai/v1"), 2, "without a path"),
        ("upstreams:\n  a:\n    kind: azure\n", 2, "expected base_url"),
        (f"{PLAIN}    breaker: {{failures: 0}}\n", 4, "greater than 0"),
        (f"{PLAIN}    breaker: {{fails: 1}}\n", 4, "there is no such key"),
        (f"{PLAIN}    breaker: on\n", 4, "breaker"),
        (f"{PLAIN}    chat_stream_usage: always\n", 4, "'off' or 'inject'"),
        (f"{PLAIN}    chat_stream_usage: on\n", 4, "'off' or 'inject'"),
        (f"{PLAIN}    proxy: socks5://p:1\n", 4, "http://HOST:PORT"),
        (f"{PLAIN}    proxy: http://u:hidden@p:1\n", 4, "use user and password"),
        (f"{PLAIN}    proxy: {{url: 'http://p:1', user: u}}\n", 4, "user and password together"),
        (f"{PLAIN}    proxy: {{user: u, password: hidden}}\n", 4, "either a url or environment"),
        (f"{PLAIN}    tls: {{verify: false}}\n", 4, "True"),
        (f"{PLAIN}    tls: {{ca_file: /nowhere/ca.pem}}\n", 4, "ca_file: /nowhere/ca.pem cannot be read"),
        (f"{PLAIN}    tls: {{client_key_file: /nowhere/k}}\n", 4, "expected client_cert_file"),
        (f"{PLAIN.replace('https', 'http')}    tls: {{}}\n", 2, "needs a base_url with https"),
        ("upstreams:\n  a: {kind: simulator, proxy: environment}\n", 2, "takes no proxy"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, text, line, said):
    told = refused(tmp_path, text)
    assert f"headgate.yaml:{line}: " in told
    assert said in told
    assert "hidden" not in told


@pytest.mark.parametrize("name", ["ca_file", "client_cert_file"])
def test_a_file_that_is_no_certificate_is_refused_and_not_shown(tmp_path, name):
    (tmp_path / "x.pem").write_text("-----BEGIN PRIVATE KEY-----\nhidden\n-----END PRIVATE KEY-----\n")
    told = refused(tmp_path, f"{PLAIN}    tls: {{{name}: {tmp_path / 'x.pem'}}}\n")
    assert "headgate.yaml:4: upstreams.a.tls: " in told
    assert name in told
    assert "hidden" not in told


def test_a_proxys_password_is_a_secret(tmp_path):
    (tmp_path / "password").write_text("pw\n")
    text = f"{PLAIN}    proxy: {{url: 'http://p:1', user: u, password: 'file:{tmp_path / 'password'}'}}\n"
    one = load(tmp_path, text).upstreams["a"]
    assert one.proxy.password.get_secret_value() == "pw"
    assert "'pw'" not in repr(one)


def test_other_content_of_a_certificate_is_another_configuration(tmp_path):
    """So that a reload takes it, though the file has the same name."""
    authority = Path(__import__("ssl").get_default_verify_paths().cafile or "")
    if not authority.is_file():
        pytest.skip("this machine has no file of authorities to take certificates from")
    whole = authority.read_text()
    end = "-----END CERTIFICATE-----\n"
    path = tmp_path / "ca.pem"
    made = []
    for part in (whole.split(end)[0], whole.split(end)[0], whole.split(end)[1]):
        path.write_text(part[part.index("-----BEGIN") :] + end)
        made.append(UpstreamSettings(base_url="https://a.example/v1", tls={"ca_file": path}))
    assert made[0] == made[1]
    assert made[0] != made[2]


async def test_a_variable_that_names_no_proxy_is_a_configuration_error(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://p:1080")
    configuration = load(tmp_path, f"{PLAIN}    proxy: environment\n")
    upstreams = Upstreams(tmp_path)
    with pytest.raises(ConfigurationError, match=r"upstreams\.a: the environment's proxy for https"):
        await upstreams.open(configuration, {})
    await upstreams.close()


def test_an_upstream_without_state_has_no_sockets_and_needs_responses(tmp_path):
    kept = load(tmp_path, "upstreams:\n  a: {base_url: 'https://api.openai.com/v1', state: gateway}\n").upstreams["a"]
    assert (kept.state, kept.state_ttl_days, kept.has_sockets) == ("gateway", 30, False)
    usual = load(tmp_path, "upstreams:\n  a: {base_url: 'https://api.openai.com/v1'}\n").upstreams["a"]
    assert (usual.state, usual.has_sockets) == ("upstream", True)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("state: gateway, websocket: native", "no WebSockets"),
        ("state: gateway, responses: none", "needs responses: native"),
        ("state_ttl_days: 3", "belongs to state: gateway"),
        ("state: gateway, state_ttl_days: 0", "state_ttl_days"),
        ("state: yes", "state"),
    ],
)
def test_state_that_cannot_be_is_refused(more, why, tmp_path):
    assert why in refused(tmp_path, f"upstreams:\n  a: {{base_url: 'https://a.example/v1', {more}}}\n")
