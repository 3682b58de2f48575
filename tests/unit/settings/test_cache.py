"""The response cache in the configuration file, for all models and for one."""

from __future__ import annotations

import pytest

from app.settings import CacheSettings, ConfigurationError, ModelCache, load_configuration
from app.settings.file import PACKAGED

RULE = "upstreams: {a: {kind: simulator}}\nmodels:\n  - {match: m, upstream: a, cache: %s}\n"


def load(tmp_path, text, environ=None):
    path = tmp_path / "headgate.yaml"
    path.write_text(text)
    return load_configuration(path, environ or {})


def of_the_model(tmp_path, text):
    return load(tmp_path, RULE % text).models[0].cache


def test_every_default_is_written_out_in_the_packaged_file():
    loaded = load_configuration(PACKAGED, {}).cache
    assert loaded == CacheSettings()
    assert loaded.model_fields_set == set(CacheSettings.model_fields)


def test_what_a_file_says_is_so(tmp_path):
    text = """cache: {mode: all, scope: global, ttl_s: 2592000, memory_bytes_max: 67108864, entry_bytes_max: 4194304,
        count_tokens: true, idempotency_ttl_s: 0.5}"""
    read = load(tmp_path, text).cache
    assert read == CacheSettings(
        mode="all",
        scope="global",
        ttl_s=2_592_000,
        memory_bytes_max=2**26,
        entry_bytes_max=2**22,
        count_tokens=True,
        idempotency_ttl_s=0.5,
    )
    assert load(tmp_path, "cache: {scope: key}").cache == CacheSettings(scope="key")


@pytest.mark.parametrize(
    ("written", "mode"),
    [
        ("off", "off"),
        ("no", "off"),
        ("'off'", "off"),
        ("shadow", "shadow"),
        ("deterministic", "deterministic"),
        ("all", "all"),
    ],
)
def test_off_is_a_mode_though_yaml_takes_it_for_a_truth_value(tmp_path, written, mode):
    assert load(tmp_path, f"cache: {{mode: {written}}}").cache.mode == mode
    assert of_the_model(tmp_path, written) == of_the_model(tmp_path, f"{{mode: {written}}}") == ModelCache(mode=mode)


def test_the_mode_may_come_from_the_environment(tmp_path):
    text = "cache: {mode: '${MODE:-off}'}"
    assert load(tmp_path, text).cache.mode == "off"
    assert load(tmp_path, text, {"MODE": "all"}).cache.mode == "all"


def test_a_model_says_only_what_it_has_otherwise(tmp_path):
    assert of_the_model(tmp_path, "{scope: key, ttl_s: 60}") == ModelCache(mode=None, scope="key", ttl_s=60)
    assert of_the_model(tmp_path, "{}") == ModelCache()
    assert of_the_model(tmp_path, "null") is None
    assert load(tmp_path, (RULE % "off").replace(", cache: off", "")).models[0].cache is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("cache: {mode: on}", (":1", "cache.mode: expected one of off, shadow, deterministic, all")),
        ("cache: {mode: yes}", (":1", "cache.mode: expected one of off")),
        ("cache:\n  mode: always\n", (":2", "cache.mode", "'off', 'shadow', 'deterministic' or 'all'")),
        ("cache: {mode: 1}", (":1", "cache.mode", "'shadow'")),
        ("cache: {scope: everyone}", (":1", "cache.scope", "'team', 'key' or 'global'")),
        ("cache: {scope: off}", (":1", "cache.scope", "'team', 'key' or 'global'")),
        ("cache: {ttl_s: 0}", (":1", "cache.ttl_s", "greater than 0")),
        ("cache: {ttl_s: 2592000.5}", (":1", "cache.ttl_s", "2592000")),
        ("cache: {ttl_s: .nan}", (":1", "cache.ttl_s", "finite number")),
        ("cache: {ttl_s: no}", (":1", "cache.ttl_s", "expected a number")),
        ("cache: {idempotency_ttl_s: 2592001}", (":1", "cache.idempotency_ttl_s", "2592000")),
        ("cache: {entry_bytes_max: 4194305}", (":1", "cache.entry_bytes_max", "4194304")),
        ("cache: {entry_bytes_max: 1}", (":1", "cache.entry_bytes_max", "1024")),
        ("cache: {memory_bytes_max: 1048575}", (":1", "cache: expected entry_bytes_max (1048576) not to be above")),
        ("cache: {memory_bytes_max: 2048, entry_bytes_max: 2049}", (":1", "memory_bytes_max (2048)")),
        ("cache: {count_tokens: some}", (":1", "cache.count_tokens", "boolean")),
        ("cache: {ttl: 5}", (":1", "cache.ttl", "no such key")),
        ("cache: on", (":1", "cache", "dictionary")),
        (RULE % "on", (":3", "models.0.cache.mode: expected one of off, shadow, deterministic, all")),
        (RULE % "always", (":3", "models.0.cache.mode", "'shadow'")),
        (RULE % "{mode: true}", (":3", "models.0.cache.mode: expected one of off")),
        (RULE % "{ttl_s: -1}", (":3", "models.0.cache.ttl_s", "greater than 0")),
        (RULE % "{entry_bytes_max: 2048}", (":3", "models.0.cache.entry_bytes_max", "no such key")),
        (RULE % "5", (":3", "models.0.cache", "dictionary")),
        (RULE % "[all]", (":3", "models.0.cache", "dictionary")),
    ],
)
def test_what_makes_no_sense_is_refused_with_line_key_and_what_was_expected(tmp_path, text, parts):
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, text)
    for part in parts:
        assert part in str(refused.value)
