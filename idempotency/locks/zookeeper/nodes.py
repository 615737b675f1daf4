"""Locks as ZooKeeper keeps them: a folder each, with a line of nodes of which the first holds."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from urllib.parse import quote, unquote

_NODE = re.compile(r"([^,]+),[0-9a-f]{8},(-?\d{10,})")
_WRAP = 2**32


def folder_of(root: str, name: str) -> str:
    """Give the path of the folder of the lock *name*."""
    element = quote(name, safe=":@=+ ")
    if not element.strip("."):
        element = element.replace(".", "%2E")  # ZooKeeper refuses "." and "..".
    return f"{root}/{element}"


def name_of(element: str) -> str:
    """Give the name of the lock whose folder is called *element*."""
    return unquote(element)


def new_place(folder: str, owner: str) -> str:
    """
    Give what the path of a new node begins with; ZooKeeper adds its number.

    It tells whose the node is, and for which try it was made, even if ZooKeeper's answer is lost.
    """
    return f"{folder}/{quote(owner, safe=':')},{secrets.token_hex(4)},"


def place_of(path: str) -> str:
    """Give what the path of a node begins with before its number."""
    return path[: path.rindex(",") + 1]


def split(path: str) -> tuple[str, str]:
    """Give the folder of a path and the rest."""
    folder, _, node = path.rpartition("/")
    return folder, node


def in_line(nodes: Collection[str]) -> list[str]:
    """Give those of *nodes* that stand in line, the first one first."""
    return sorted((node for node in nodes if _NODE.fullmatch(node)), key=_number)


def owner_of(node: str) -> str:
    """Give whose *node* is."""
    return unquote(node.partition(",")[0])


def _number(node: str) -> int:
    # ZooKeeper counts with a sign: after 2147483647 comes -2147483648.
    return int(node.rpartition(",")[2]) % _WRAP
