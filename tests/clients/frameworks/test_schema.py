"""The configuration's schema, by a validator that is not ours; it comes with what these suites need."""

import copy
import json
import pathlib
import tomllib

import jsonschema
import pytest

from scripted import THROUGH_GATEWAY

pytestmark = pytest.mark.skipif(not THROUGH_GATEWAY, reason="no server has to do with it")

ROOT = pathlib.Path(__file__).resolve().parents[3]
SCHEMA = json.loads((ROOT / "docs" / "tidegate.schema.json").read_text())
EXAMPLE = tomllib.loads((ROOT / "tidegate.example.toml").read_text())


def errors(document):
    return [error.json_path for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)]


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_example_is_good_and_so_are_the_lines_it_has_commented_out():
    assert errors(EXAMPLE) == []
    more = """
    [[client_key]]
    tenant = "my-team"
    hash = "sha256:00"
    [[tenant]]
    name = "my-team"
    weight = 1.5
    keep_age = "30 d"
    [tenant.redact]
    policy = "block"
    kinds = { email = "mask" }
    [[organisation]]
    name = "a"
    proxy = { env = "NAME" }
    keys = [{ file = "k", workspace = "research" }]
    [organisation.workspace.research.limits."claude-opus-4"]
    output_tokens_per_minute = 100000
    """
    assert errors(tomllib.loads(more)) == []


def test_defaults_are_of_their_own_types():
    wrong = []

    def look(node, path):
        if isinstance(node, dict):
            if "default" in node:
                here = {**{key: value for key, value in node.items() if key != "default"}, "$defs": SCHEMA["$defs"]}
                if not jsonschema.Draft202012Validator(here).is_valid(node["default"]):
                    wrong.append(path)
            for key, below in node.items():
                look(below, f"{path}.{key}")

    look(SCHEMA["properties"], "")
    assert wrong == []


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("limits", "body_bytez", "1 MiB"),
        ("limits", "body_bytes", 5),
        ("limits", "body_bytes", "5 s"),
        ("clocks", "gap", "45"),
        ("clocks", "gap", "1.5 s"),
        ("listen", "threads", 300),
        ("log", "format", "xml"),
        ("queue", "waiting_max", -1),
        ("redact", "kinds", {"email": "hide"}),
    ],
)
def test_what_tidegate_refuses_by_its_type_the_schema_refuses(table, key, value):
    document = copy.deepcopy(EXAMPLE)
    document[table][key] = value
    assert errors(document) != []


def test_what_must_be_there_and_tables_that_are_not_are_told():
    assert errors({"organisation": [{"name": "a"}]}) == ["$.organisation[0]"]
    assert errors({"clock": {}}) == ["$"]
