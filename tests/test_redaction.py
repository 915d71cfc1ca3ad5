"""What is secret is taken out of a bug report, by the name of its field and by its value; and nothing else is."""

import json

import pytest
import yaml

from felix_py.ctl.redaction import redacted


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("password: hunter2 and more\n", id="YAML"),
        pytest.param("  - bgpPassword: 'hunter2'\n", id="in a list"),
        pytest.param('{"apiToken": "hunter2", "port": 179}', id="JSON"),
        pytest.param("{name: tor, secret: hunter2}", id="in flow style"),
        pytest.param("MD5_KEY=hunter2\n", id="a variable of the environment"),
        pytest.param("neighbor 10.0.0.1 password=hunter2\n", id="in the middle of a line"),
        pytest.param("https://host/?token=hunter2&x=1", id="in an address"),
        pytest.param("clientSecret: |\n  hunter2\n  hunter2\n", id="of several lines"),
        pytest.param('"Passphrase" : "with \\" hunter2"', id="quoted within"),
    ],
)
def test_a_field_that_is_named_like_a_secret_loses_its_value(text: str) -> None:
    assert "hunter2" not in redacted(text)
    assert "REMOVED" in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("password:\n  secretKeyRef: {name: tor, key: password}\n", id="a reference is no secret"),
        pytest.param("passwordFile: /etc/felix/tor\nsecretDirectory: /etc/felix/secrets\n", id="nor is a place"),
        pytest.param('{"password": null}', id="nor is nothing"),
        pytest.param("10.65.0.0/26 dev tunl0 proto 80\n", id="routes"),
        pytest.param("lastErrorCause: md5\n", id="a cause"),
        pytest.param("name: tor\nasNumber: 64512\n", id="a resource"),
    ],
)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_what_was_redacted_is_still_a_document() -> None:
    secret = {
        "a": {"password": "x: y", "port": 1},
        "tokens": "hunter2",
        "list": [{"secret": "s", "n": 2}],
        "md5": 12345,
    }
    for text in (json.dumps(secret, indent=2), json.dumps(secret)):
        assert json.loads(redacted(text))["list"][0] == {"secret": "REMOVED", "n": 2}
    assert yaml.safe_load(redacted(yaml.safe_dump(secret)))["a"] == {"password": "REMOVED", "port": 1}


def test_values_that_are_known_go_wherever_they_stand() -> None:
    text = 'event: "refused: hunter2-long"\nargs: --md5-with hunter2\npin ab, cab\n'
    assert redacted(text, ["hunter2", "hunter2-long", "ab", " "]) == (
        'event: "refused: REMOVED"\nargs: --md5-with REMOVED\npin REMOVED, cab\n'
    )
