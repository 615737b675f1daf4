"""Keeps locks in ZooKeeper."""

from .backend import ZooKeeperLockBackend

__all__ = ["ZooKeeperLockBackend"]
