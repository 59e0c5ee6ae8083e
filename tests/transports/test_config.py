"""The configuration: what is read, what is refused, and in which words."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import msgspec
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from nursling.engine.limits import DEFAULT_LIMITS
from nursling.transports.config import (
    PROCESS_LIMITS,
    Config,
    ConfigError,
    config_from_dict,
    is_loopback,
    limits_with,
    load_config,
    with_address,
)
from nursling.transports.secret import Secret
from nursling.transports.toml_lines import Lines


CANARY = "sk-canary-4711"

WHOLE = """\
[server]
host = "0.0.0.0"
port = 9000
cors_origins = ["https://app.example"]
fallback_provider = "local"

[[keys]]
name = "laptop"
secret = "${KEY}"
[[keys]]
name = "phone"
sha256 = "ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789"

[providers.openai]
api = "openai-responses"
base_url = "https://api.openai.com/v1"
api_key = "${KEY}"
headers = { "OpenAI-Organization" = "org-${ORG}" }
wildcard = true
fold = true
include_usage = false
max_streams = 4
limits = { idle_timeout = 300, max_event_bytes = 4194304 }

[providers.local]
base_url = "http://127.0.0.1:11434/v1"

[[models]]
id = "org/model"
provider = "openai"
upstream_model = "real"
description = "Costs $${nothing}."
describe = true
context_window = 1000
max_tokens = 100
reasoning = true
input = ["text", "image"]
cost = { input = 1.5, whatever = 2 }
compat = { anything = { goes = true } }
base_url = "https://other.example/v1"
api = "openai-completions"
api_key = "x"
order = 2
weight = 0.5
[models.limits]
idle_timeout = 0

[limits]
idle_timeout = 60
"""


def read(text: str, tmp_path: Path, **environ: str) -> Config:
    path = tmp_path / "n.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(str(path), environ=environ)


def refusal(text: str, tmp_path: Path, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, tmp_path, **environ)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{tmp_path}/")


def test_every_key_of_the_file_is_read(tmp_path: Path) -> None:
    """A file that uses everything arrives in the frozen object."""
    config = read(WHOLE, tmp_path, KEY=CANARY, ORG="7")
    assert (config.server.host, config.server.port) == ("0.0.0.0", 9000)  # noqa: S104 - it is the case
    assert config.server.cors_origins == ("https://app.example",)
    assert config.keys[0].digest == hashlib.sha256(CANARY.encode()).digest()
    assert config.keys[1].digest.hex().startswith("abcdef")
    openai = config.providers["openai"]
    assert openai.api_key == Secret(CANARY)
    assert openai.headers == {"OpenAI-Organization": Secret("org-7")}
    assert (openai.wildcard, openai.fold, openai.include_usage) == (True, True, False)
    (model,) = config.models
    assert model.description == "Costs ${nothing}."
    assert (model.order, model.weight, model.input) == (2, 0.5, ("text", "image"))
    assert model.compat == {"anything": {"goes": True}}
    limits = limits_with(config.limits, openai.limits, model.limits)
    assert (limits.idle_timeout, limits.max_event_bytes) == (0, 4 * 1024 * 1024)
    assert limits.connect_timeout == DEFAULT_LIMITS.connect_timeout


def test_a_secret_shows_nowhere(tmp_path: Path) -> None:
    """No repr, format, dump or pickle of a configuration has a secret in it."""
    config = read(WHOLE, tmp_path, KEY=CANARY, ORG=CANARY)
    assert CANARY not in repr(config)
    assert CANARY not in f"{config.providers['openai'].api_key} {config.providers['openai']}"
    assert CANARY not in str(msgspec.structs.asdict(config.keys[0]))
    with pytest.raises(TypeError):
        msgspec.json.encode(config)
    with pytest.raises(TypeError):
        pickle.dumps(config.providers["openai"].api_key)


def test_secrets_compare_by_value() -> None:
    """Equal secrets are equal, and usable as keys; an empty one is false."""
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert not Secret("")


REFUSED = {
    "unknown key": (
        '[server]\nport = 1\nhots = "x"',
        "n.toml:3: unknown key 'hots' in [server]; did you mean 'host'?",
    ),
    "unknown table": (
        "[sever]\n",
        "n.toml:1: unknown key 'sever' in the file; did you mean 'server'?",
    ),
    "unknown key of a provider": (
        '[providers.a]\nbase_url = "http://h/v1"\n\nbase_ur = 1',
        "n.toml:4: unknown key 'base_ur' in [providers.a]; did you mean 'base_url'?",
    ),
    "unknown key of the second model": (
        '[[models]]\nid = "a"\n[[models]]\nid = "b"\nprovidr = "x"',
        "n.toml:5: unknown key 'providr' in [[models]] 2; did you mean 'provider'?",
    ),
    "unknown limit": (
        "[limits]\nidle_timeut = 3",
        "n.toml:2: unknown key 'idle_timeut' in [limits]; did you mean 'idle_timeout'?",
    ),
    "unknown limit in an inline table": (
        '[providers.a]\nbase_url = "http://h"\nlimits = { idel_timout = 3 }',
        (
            "n.toml:3: unknown key 'idel_timout' in [providers.a], limits; "
            "did you mean 'idle_timeout'?"
        ),
    ),
    "unknown limit of a model's own table": (
        '[[models]]\nid = "m"\n[models.limits]\nconect_timeout = 3',
        (
            "n.toml:4: unknown key 'conect_timeout' in [[models]] 1, limits;"
            " did you mean 'connect_timeout'?"
        ),
    ),
    "nothing near": (
        "[server]\nzzz = 1",
        (
            "n.toml:2: unknown key 'zzz' in [server];"
            " known: host, port, cors_origins, tls_cert, tls_key, workers,"
            " fallback_provider"
        ),
    ),
    "a limit of the process at a provider": (
        "[providers.a]\nlimits.max_streams = 3",
        "n.toml:2: max_streams is of the whole process: see [limits]",
    ),
    "a negative limit": ("[limits]\nheartbeat = -1", "n.toml:2: heartbeat is a number from 0 up"),
    "a size of nothing": (
        "[limits]\nmax_event_bytes = 0",
        "n.toml:2: max_event_bytes is a number from 1 up",
    ),
    "less than nothing": (
        "[limits]\nmax_recall_bytes = -1",
        "n.toml:2: max_recall_bytes is a number from 0 up",
    ),
    "an endless limit": ("[limits]\nheartbeat = inf", "n.toml:2: heartbeat is a number from 0 up"),
    "wrong type": (
        '[server]\n\nport = "x"',
        "n.toml:3: [server], port: expected `int`, got `str`",
    ),
    "wrong type of a limit": (
        '[limits]\nheartbeat = "x"',
        "n.toml:2: [limits], heartbeat: expected `float`, got `str`",
    ),
    "wrong type of a secret": (
        "[providers.a]\napi_key = 3",
        "n.toml:2: [providers.a], api_key: expected `str`, got `int`",
    ),
    "out of range": (
        "[server]\nport = 70000",
        "n.toml:2: [server], port: expected `int` <= 65535",
    ),
    "unknown api": (
        '[providers.a]\napi = "anthropic"',
        (
            "n.toml:2: [providers.a], api: invalid enum value 'anthropic';"
            " known: openai-completions, openai-responses, openai-codex-responses"
        ),
    ),
    "missing field": ("[[models]]\n", "n.toml:1: [[models]] 1: object missing required field `id`"),
    "no table": ('server = "x"', "n.toml:1: server is a table: [server]"),
    "a provider that is no table": (
        '[providers]\na = "x"',
        "n.toml:2: [providers.a]: expected `object`, got `str`",
    ),
    "no array": ('[keys]\nname = "x"', "n.toml:1: keys is an array of tables: [[keys]]"),
    "missing variable": (
        '[providers.a]\nbase_url = "http://h"\napi_key = "${GONE}"',
        "n.toml:3: [providers.a], api_key: the environment variable GONE is not set",
    ),
    "broken variable": (
        '[server]\nhost = "${A"',
        "n.toml:2: [server], host: a variable is written ${NAME}",
    ),
    "syntax": (
        "[server\n",
        "n.toml:1: Expected ']' at the end of a table declaration",
    ),
    "the mesh": ('[node]\nid = "desk"', "n.toml:1: the peer mesh is not in this release"),
    "peers": ('[[peers]]\nid = "x"', "n.toml:1: the peer mesh is not in this release"),
    "a model on a node": (
        '[[models]]\nid = "x"\nnode = "gpu"',
        "n.toml:3: the peer mesh is not in this release",
    ),
    "exposed without a key": (
        '[server]\nhost = "0.0.0.0"',
        (
            "n.toml:2: listening on '0.0.0.0' lets others in:"
            " configure at least one [[keys]] entry first"
        ),
    ),
    "half of TLS": ('[server]\ntls_cert = "x"', "n.toml:1: tls_cert and tls_key go together"),
    "no certificate": (
        '[server]\nport = 1\ntls_cert = "/nonexistent/c.pem"\ntls_key = "/nonexistent/k.pem"',
        "n.toml:3: /nonexistent/c.pem: No such file or directory",
    ),
    "no key of the certificate": (
        '[server]\ntls_cert = "/dev/null"\ntls_key = "/nonexistent/k.pem"',
        "n.toml:3: /nonexistent/k.pem: No such file or directory",
    ),
    "a key that no client can send": (
        '[[keys]]\nname = "a"\nsecret = "x\\ny"',
        "n.toml:3: the value has characters that no header can carry",
    ),
    "a key without secret": (
        '[[keys]]\nname = "a"',
        "n.toml:1: a key has either a secret or a sha256",
    ),
    "an empty secret": (
        '[[keys]]\nname = "a"\nsecret = ""',
        "n.toml:3: the secret is empty",
    ),
    "a short hash": (
        '[[keys]]\nname = "a"\nsha256 = "12"',
        "n.toml:3: sha256 is 64 hexadecimal digits",
    ),
    "too many": (
        "[limits]\nmax_connections = 100000000000000000000",
        "n.toml:2: max_connections is 1000000 at most",
    ),
    "too much": (
        "[server]\n[limits]\nmax_body_bytes = 1099511627777",
        "n.toml:3: max_body_bytes is 1099511627776 at most",
    ),
    "a key without a name": (
        '[[keys]]\nname = " "\nsecret = "s"',
        "n.toml:2: the name is empty",
    ),
    "two keys of one name": (
        '[[keys]]\nname = "a"\nsecret = "1"\n[[keys]]\nname = "a"\nsecret = "2"',
        "n.toml:1: two keys have the same name",
    ),
    "a provider with a slash": (
        '[providers."a/b"]\n',
        "n.toml:1: a provider's name is not empty and has no '/'",
    ),
    "no url": (
        '[providers.a]\nbase_url = "localhost:80"',
        "n.toml:2: base_url is like https://host/v1",
    ),
    "a broken url": (
        '[providers.a]\nbase_url = "http://[::1/v1"',
        "n.toml:2: base_url is like https://host/v1",
    ),
    "a password in a url": (
        f'[providers.a]\nbase_url = "http://u:{CANARY}@h/v1"',
        "n.toml:2: credentials do not belong in base_url: use api_key or headers",
    ),
    "a proxy of SOCKS": (
        f'[providers.a]\nbase_url = "http://h"\nproxy = "socks5://u:{CANARY}@h:1080"',
        "n.toml:3: a socks5 proxy is not supported: one that speaks HTTP is",
    ),
    "a proxy without a scheme": (
        f'[providers.a]\nproxy = "u:{CANARY}@h:3128"',
        "n.toml:2: proxy is like http://host:3128, or http://user:password@host:3128",
    ),
    "a proxy with a broken port": (
        f'[providers.a]\nproxy = "http://u:{CANARY}@h:x"',
        "n.toml:2: proxy is like http://host:3128, or http://user:password@host:3128",
    ),
    "a proxy with a path": (
        f'[providers.a]\nproxy = "http://u:{CANARY}@h:3128/x"',
        "n.toml:2: proxy has nothing behind its host and port",
    ),
    "a header of ours": (
        '[providers.a]\nheaders = { "Accept-Encoding" = "gzip" }',
        "n.toml:2: the header Accept-Encoding is not configurable",
    ),
    "no header": (
        '[providers.a]\nheaders = { "a b" = "c" }',
        "n.toml:2: 'a b' is not the name of a header",
    ),
    "a line break in a key": (
        '[providers.a]\napi_key = "a\\nb"',
        "n.toml:2: the value has characters that no header can carry",
    ),
    "describe what": (
        '[[models]]\nid = "a"\ndescribe = true',
        "n.toml:3: describe needs a description",
    ),
    "no id": ('[[models]]\nid = ""', "n.toml:2: the id is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_in_one_line(case: str, tmp_path: Path) -> None:
    """Each mistake is an error with its file, line and remedy, and no secret value."""
    text, expected = REFUSED[case]
    message = refusal(text, tmp_path)
    assert message == expected
    assert CANARY not in message


@pytest.mark.parametrize("pair", ["good", "mixed", "locked"])
def test_a_certificate_is_tried(pair: str, tmp_path: Path) -> None:
    """A certificate with its key is good; another's key or a locked one is refused, unasked."""
    authority = trustme.CA()
    ours, other = authority.issue_cert("h"), authority.issue_cert("h")
    (tmp_path / "c.pem").write_bytes(ours.cert_chain_pems[0].bytes())
    key = (other if pair == "mixed" else ours).private_key_pem.bytes()
    if pair == "locked":
        key = serialization.load_pem_private_key(key, None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    (tmp_path / "k.pem").write_bytes(key)
    text = f'[server]\ntls_cert = "{tmp_path}/c.pem"\ntls_key = "{tmp_path}/k.pem"'
    if pair == "good":
        assert read(text, tmp_path).server.tls_cert == f"{tmp_path}/c.pem"
    else:
        message = refusal(text, tmp_path)
        assert message.startswith("n.toml:2: ")
        assert "are no certificate and its key" in message


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    """Some editors begin a file with U+FEFF; the lines stay right."""
    assert read("\ufeff[server]\nport = 1\n", tmp_path).server.port == 1
    assert refusal("\ufeff[server]\nprt = 1\n", tmp_path).startswith("n.toml:2: unknown key")


SHOWN = {
    "a key": ('[[keys]]\nname = "a"\nsecret = "%s"', 3),
    "a provider's": ('[providers.a]\nbase_url = "http://h"\napi_key = "%s"', 3),
    "a header": ('[providers.a]\n\nheaders = { "X-Api-Key" = "%s" }', 3),
    "a proxy's": ('[providers.a]\nproxy = "http://u:%s@h:3128"', 2),
    "a model's": ('[[models]]\nid = "m"\n\napi_key = "%s"', 4),
}


@pytest.mark.parametrize("case", SHOWN)
def test_a_secret_that_others_can_read_is_warned_of(case: str, tmp_path: Path) -> None:
    """Only a secret in the file itself, and only if the file's mode lets others in."""
    text, line = SHOWN[case]
    file = tmp_path / "n.toml"
    file.write_text(text % CANARY)
    for mode, warned in ((0o644, True), (0o640, True), (0o604, True), (0o600, False)):
        file.chmod(mode)
        warnings = load_config(str(file), environ={}).warnings
        assert len(warnings) == warned
        for warning in warnings:
            assert warning.startswith(f"{file}:{line}: a secret in a file that others may read")
            assert f"(mode {mode:o})" in warning
            assert CANARY not in warning
    file.write_text(text % "${KEY}")
    file.chmod(0o644)
    assert load_config(str(file), environ={"KEY": CANARY}).warnings == ()


def test_what_is_no_secret_is_not_warned_of(tmp_path: Path) -> None:
    """A hash, the name of an organisation and a proxy without a password may be read by all."""
    text = (
        f'[[keys]]\nname = "a"\nsha256 = "{"0" * 64}"\n[providers.a]\nheaders = {{ X-Org = "o" }}'
        '\nproxy = "http://proxy.example:3128"'
    )
    assert read(text, tmp_path).warnings == ()


@pytest.mark.parametrize("name", sorted(PROCESS_LIMITS))
def test_limits_of_the_process_exist(name: str) -> None:
    """The list of limits that no provider may set names real limits."""
    assert hasattr(DEFAULT_LIMITS, name)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """`--config` with a file that is not there does not fall back to anything."""
    with pytest.raises(ConfigError, match="No such file or directory"):
        load_config(str(tmp_path / "gone.toml"), environ={})


def test_the_file_is_looked_for_in_order(tmp_path: Path) -> None:
    """The current directory comes before the home directory, and both before the default."""
    here, home = tmp_path / "here", tmp_path / "home"
    (home / ".config" / "nursling").mkdir(parents=True)
    here.mkdir()
    found = load_config(environ={"HOME": str(home)}, directory=here)
    assert found.path is None
    (home / ".config" / "nursling" / "nursling.toml").write_text("[server]\nport = 1\n")
    assert load_config(environ={"HOME": str(home)}, directory=here).server.port == 1
    (here / "nursling.toml").write_text("[server]\nport = 2\n")
    assert load_config(environ={"HOME": str(home)}, directory=here).server.port == 2
    (here / "nursling.toml").unlink()
    assert load_config(environ={}, directory=here).server.port == 8787


def test_the_default_is_the_demo_on_loopback() -> None:
    """Without file and environment there is the demo model, on 127.0.0.1:8787."""
    config = load_config(environ={}, directory=Path("/nonexistent"))
    assert [model.id for model in config.models] == ["demo"]
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8787)
    assert config.providers == {}


def test_the_environment_adds_openai() -> None:
    """OPENAI_API_KEY makes a wildcard provider, at OPENAI_BASE_URL if that is set."""
    environ = {"OPENAI_API_KEY": "sk-${odd}"}
    openai = load_config(environ=environ, directory=Path("/nonexistent")).providers["openai"]
    assert openai.api_key == Secret("sk-${odd}")
    assert (openai.wildcard, openai.api) == (True, "openai-responses")
    assert openai.base_url == "https://api.openai.com/v1"
    environ["OPENAI_BASE_URL"] = "http://127.0.0.1:1/v1"
    openai = load_config(environ=environ, directory=Path("/nonexistent")).providers["openai"]
    assert openai.base_url == "http://127.0.0.1:1/v1"


def test_a_variable_cannot_change_the_structure(tmp_path: Path) -> None:
    """What a variable holds is a string's content, whatever it looks like."""
    text = '[[keys]]\nname = "${NAME}"\nsecret = "${SECRET}"'
    config = read(text, tmp_path, NAME='"\nsecret = "', SECRET="${NAME}")
    assert config.keys[0].name == '"\nsecret = "'
    assert config.keys[0].digest == hashlib.sha256(b"${NAME}").digest()


def test_the_command_line_is_checked_too() -> None:
    """--host cannot open what the file may not open."""
    config = config_from_dict({})
    assert with_address(config, None, 0).server.port == 0
    assert with_address(config, "::1", None).server.host == "::1"
    assert with_address(config, None, None, 4).server.workers == 4
    assert with_address(config, None, None).server.workers == 1
    with pytest.raises(ConfigError, match="lets others in"):
        with_address(config, "192.168.0.1", None)


@pytest.mark.parametrize("workers", [None, 2])
def test_a_node_is_one_process(workers: int | None) -> None:
    """A node of the mesh has its links in one process: several are refused, wherever it is said."""
    several = config_from_dict({"server": {"workers": 3}}, environ={})
    for config, said in [(several, workers), (config_from_dict({}, environ={}), workers or 3)]:
        node = msgspec.structs.replace(config, node=True)
        with pytest.raises(ConfigError, match=r"^workers = \d and \[node\] do not go together: "):
            with_address(node, None, None, said)
        assert with_address(node, None, None, 1).server.workers == 1


@pytest.mark.parametrize("workers", [0, 129, 1.5, "auto"])
def test_workers_are_a_small_number(workers: object) -> None:
    """From 1 to 128."""
    with pytest.raises(ConfigError, match=r"\[server\], workers: expected `int`"):
        config_from_dict({"server": {"workers": workers}}, environ={})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - it is the case
        ("::", False),
        ("", False),
        ("myhost", False),
        ("10.0.0.1", False),
    ],
)
def test_what_counts_as_loopback(host: str, loopback: bool) -> None:
    """Only addresses that no other machine reaches are loopback."""
    assert is_loopback(host) is loopback


def test_a_dict_is_as_good_as_a_file() -> None:
    """Errors in a dict name the place, without a line."""
    with pytest.raises(ConfigError, match=r"^config: unknown key 'hots' in \[server\]"):
        config_from_dict({"server": {"hots": 1}})
    config = config_from_dict(
        {"providers": {"a": {"base_url": "http://h", "api_key": Secret("x")}}}
    )
    assert config.providers["a"].api_key == Secret("x")


def test_lines_of_keys_in_every_notation() -> None:
    """Headers, dotted and quoted keys, arrays and multi-line strings have the right lines."""
    text = (
        'top = 1\ntext = """\n[fake]\nkey = 1\n"""\n["a b".c] # note\nx.y = 2\n'
        "[[m]]\nid = 1\n[[m]]\nid = 2\n[m.sub]\nz = 3\n"
    )
    lines = Lines(text)
    assert lines.of(("top",)) == 1
    assert lines.of(("fake",)) is None
    assert lines.of(("a b", "c", "x", "y")) == 7
    assert lines.of(("a b", "c", "gone")) == 6
    assert lines.of(("m", 0, "id")) == 9
    assert lines.of(("m", 1, "id")) == 11
    assert lines.of(("m", 1, "sub", "z")) == 13
    assert lines.of(("m", 1, "sub")) == 12
