"""The configuration file: errors name line, key and what was expected; secrets never show."""

from pathlib import Path

import pytest

from app.settings import ConfigurationError, Environment, load_configuration
from app.settings.file import PACKAGED


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None):
    path = tmp_path / "headgate.yaml"
    path.write_text(text)
    return load_configuration(path, environ or {})


def refused(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text, environ)
    return str(caught.value)


UPSTREAM = "upstreams:\n  a:\n    base_url: http://127.0.0.1:1/v1\n"


def test_the_default_configuration_loads_and_its_openai_is_off_without_a_key():
    loaded = load_configuration(PACKAGED, {})
    assert loaded.upstreams["openai"].is_off
    assert not load_configuration(PACKAGED, {"OPENAI_API_KEY": "sk-x"}).upstreams["openai"].is_off
    assert not loaded.upstreams["simulator"].is_off


def test_what_a_file_does_not_name_is_as_it_is_by_default(tmp_path):
    assert load(tmp_path, "server: {}").server.in_flight_max == 2000


@pytest.mark.parametrize("text", ["", "\n\n", "# only this\n"])
def test_a_file_that_is_empty_is_one_that_is_being_written(tmp_path, text):
    with pytest.raises(ConfigurationError, match="the file is empty"):
        load(tmp_path, text)


@pytest.mark.parametrize("secret", ["sk-secret\\nline", "sk-\\u00e4"])
@pytest.mark.parametrize("name", ["api_key", "api_keys", "organization"])
def test_a_credential_that_fits_into_no_header_is_refused_and_not_repeated(tmp_path, name, secret):
    value = f'["{secret}"]' if name == "api_keys" else f'"{secret}"'
    with pytest.raises(ConfigurationError, match="printable ASCII") as caught:
        load(tmp_path, f"{UPSTREAM}    {name}: {value}\n")
    assert "secret" not in str(caught.value)


def test_white_space_at_the_end_of_a_key_is_nothing_and_in_a_header_it_is(tmp_path):
    assert load(tmp_path, f'{UPSTREAM}    api_key: "sk-x\\n"\n').upstreams["a"].keys == ("sk-x",)
    with pytest.raises(ConfigurationError, match="printable ASCII"):
        load(tmp_path, f'{UPSTREAM}    project: "x\\n"\n')


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (UPSTREAM + "    api_ky: x\n", ("headgate.yaml:4", "upstreams.a.api_ky", "no such key")),
        (UPSTREAM + "server: {head_timeout_s: -1}\n", (":4", "server.head_timeout_s", "greater than 0")),
        (UPSTREAM + "server:\n  head_timeout_s: soon\n", (":5", "server.head_timeout_s", "number")),
        (UPSTREAM + "models:\n  - match: '*'\n    upstream: b\n", (":5", "models.0", "no upstream named 'b'")),
        (UPSTREAM + "server: {in_flight_max: yes}\n", (":4", "server.in_flight_max", "number")),
        (UPSTREAM + "server:\n  trusted_proxies: [nonsense]\n", (":5", "trusted_proxies", "nonsense")),
        ("- a\n", (":1", "sections")),
        (UPSTREAM + "models:\n  - upstream: a\n", (":5", "match", "name")),
        ("upstreams:\n  a:\n    base_url: ftp://x\n", (":3", "http")),
        ("upstreams:\n  a:\n    base_url: http://user:secret@x/v1\n", (":3", "credentials")),
        ("upstreams:\n  a:\n    base_url: http://secret:99999/v1\n", (":3", "upstreams.a.base_url", "a port")),
        ("upstreams:\n  a:\n    base_url: http://x:secret/v1\n", (":3", "a port")),
        ("upstreams:\n  a:\n    base_url: http://x:0/v1\n", (":3", "a port")),
        ("upstreams:\n  a:\n    base_url: http://a secret/v1\n", (":3", "a host")),
        ("upstreams:\n  a:\n    base_url: http://x/a secret\n", (":3", "http")),
        ("upstreams:\n  a:\n    base_url: http://secrét.example/v1\n", (":3", "a host")),
        ("upstreams:\n  a:\n    base_url: 'http://[::secret]/v1'\n", (":3", "a host")),
        (UPSTREAM + "    proxy: http://x:99999\n", (":4", "upstreams.a.proxy.url", "http://HOST:PORT")),
        ("upstreams: &a\n  a: *a\n", ("headgate.yaml", "within its own anchor")),
        ("[" * 20_000, ("headgate.yaml", "nested too deeply")),
        ("upstreams:\n  a: {}\n", (":2", "base_url")),
        (UPSTREAM + "    forward_headers: [Authorization]\n", (":4", "never forwarded")),
        (UPSTREAM + "stream: {on_disconnect: explode}\n", (":4", "drain", "cancel")),
        ("upstreams: {}\nupstreams: {}\n", (":2", "twice")),
        ("upstreams: [\n", (":2",)),
        ("console: {port: 1}\n", (":1", "console", "no such key")),
        (UPSTREAM + "prices:\n  - {model: x, input_per_mtok_usd: -1, output_per_mtok_usd: 1}\n", (":5", "prices.0")),
    ],
)
def test_a_wrong_file_is_refused_with_line_key_and_what_was_expected(tmp_path, text, parts):
    said = refused(tmp_path, text)
    for part in parts:
        assert part in said
    assert "secret" not in said


def test_the_environment_is_put_in_and_its_absence_is_named(tmp_path):
    text = UPSTREAM + "    api_key: ${KEY}\n"
    assert load(tmp_path, text, {"KEY": "sk-1"}).upstreams["a"].keys == ("sk-1",)
    assert "has no KEY" in refused(tmp_path, text)
    assert load(tmp_path, UPSTREAM + "    api_key: ${KEY:-sk-d}\n").upstreams["a"].keys == ("sk-d",)


def test_a_secret_can_be_a_file(tmp_path):
    (tmp_path / "secret").write_text("sk-file\n")
    text = UPSTREAM + f"    api_keys: ['file:{tmp_path}/secret', sk-2]\n"
    assert load(tmp_path, text).upstreams["a"].keys == ("sk-file", "sk-2")
    assert "cannot be read" in refused(tmp_path, UPSTREAM + "    api_key: file:/nowhere\n")


def test_secrets_are_in_no_text_of_the_settings(tmp_path):
    loaded = load(tmp_path, UPSTREAM + "    api_key: sk-canary\n")
    assert "canary" not in repr(loaded)
    assert "canary" not in str(loaded.upstreams["a"])
    said = refused(tmp_path, UPSTREAM + "    api_key: {sk-canary: 1}\n")
    assert "canary" not in said


def test_flags_go_over_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADGATE_PORT", "5000")
    assert Environment.read().port == 5000
    assert Environment.read(port=6000).port == 6000
    (tmp_path / "url").write_text("postgresql://u:p@h/d\n")
    monkeypatch.setenv("HEADGATE_DATABASE_URL_FILE", str(tmp_path / "url"))
    assert Environment.read().database == "postgresql://u:p@h/d"
    assert "u:p" not in repr(Environment.read())


def test_a_wrong_variable_is_named(monkeypatch):
    monkeypatch.setenv("HEADGATE_PORT", "many")
    with pytest.raises(ConfigurationError, match="HEADGATE_PORT"):
        Environment.read()


@pytest.mark.parametrize("url", ["http://my_gpu:8000/v1", "http://[::1]:8000/v1", "https://xn--bcher-kva.example/v1/"])
def test_whatever_can_be_called_is_an_address(tmp_path, url):
    loaded = load(tmp_path, f"upstreams:\n  a:\n    base_url: '{url}'\n")
    assert loaded.upstreams["a"].base_url == url.rstrip("/")
