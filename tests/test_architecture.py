"""Who may import whom, and how large a module may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "idempotency"
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
    if "migrations" not in path.parts
}

LAYERS = [
    {"exceptions", "conf", "canonical", "signals"},
    {"keys", "fingerprints", "outlines", "origins", "fields", "backends", "waiting", "uptime"},
    {"rollbacks", "retries", "current", "scripts", "clocks", "renewal"},
    {"inserts", "optimistic", "redis_checks", "tables"},
    {"pessimistic"},
    {"fencing"},
    {"models"},
    {"transitions", "forms"},
    {"stores", "locks"},
    {"policy", "codecs"},
    {"claims", "claiming", "settling", "patience"},
    {"reporting"},
    {"protocol"},
    {"http"},
    {"decorators", "middleware", "conditional", "locking"},
    {"statistics", "contrib", "words"},
    {"checks", "lock_checks", "setting_checks", "tenant_checks", "view_checks"}
    | {"purge", "admin"},
    {"management", "testing", "apps", "templatetags"},
]
"""A module imports from the layers before its own, or from its own folder."""

HTTP = (
    *("http", "decorators", "middleware", "conditional", "locking", "contrib"),
    *("view_checks", "setting_checks", "admin"),
)
MOST_LINES = 250


def name_of(module):
    return module.split(".")[1] if "." in module else ""


def layer_of(name):
    return next(number for number, names in enumerate(LAYERS) if name in names)


def imports(module):
    """Give the absolute names of what *module* imports, wherever in its file."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            stem = ".".join(filter(None, [base, node.module]))
            yield stem
            yield from (f"{stem}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"idempotency"}))
def test_imports_point_downwards(module):
    own = name_of(module)
    found = {
        name_of(target)
        for target in imports(module)
        if target.startswith("idempotency.") and name_of(target) != own
    }

    known = {name for name in found if any(name in names for names in LAYERS)}
    assert all(layer_of(name) < layer_of(own) for name in known), found


def test_every_module_has_its_layer():
    names = {name_of(module) for module in MODULES} - {""}

    assert names == set().union(*LAYERS)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_the_edge_knows_http(module):
    known = [
        target for target in imports(module) if target.startswith(("django.http", "django.urls"))
    ]

    assert not known or name_of(module) in HTTP


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_of_the_example_is_imported(module):
    assert not [
        target
        for target in imports(module)
        if target.split(".")[0] in ("orders", "config", "tests")
    ]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_is_short_and_opens_with_a_sentence(module):
    text = MODULES[module].read_text()

    assert len(text.splitlines()) <= MOST_LINES
    if text.strip():
        assert ast.get_docstring(ast.parse(text)).splitlines()[0].endswith((".", ":"))


def test_root_can_be_imported_before_there_are_models():
    program = (
        "import sys, idempotency;"
        "assert 'idempotency.models' not in sys.modules;"
        "assert idempotency.__all__ == sorted(idempotency.__all__);"
        "assert all(hasattr(idempotency, name) for name in idempotency.__all__)"
    )

    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=ROOT.parent)
