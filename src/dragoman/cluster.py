"""Connection to a Ray cluster: an existing one, or one on this machine for a single command."""

import logging
import socket
from typing import Any

from dragoman.errors import ConfigError

SECONDS = 5.0
"""Longest time that a cluster has to answer."""
LOCAL = "local"
"""Address of a cluster that is started on this machine for this command alone."""


def connect(address: str, processes: int | None = None) -> tuple[Any, int]:
    """Connect to a cluster; ``shutdown`` of the first result ends the connection.

    Args:
        address: of the cluster, as ``ray.init`` takes it, or ``local``.
        processes: workers wanted; None for as many as the cluster has processors.

    Returns:
        The module ``ray``, connected, and the number of workers.

    Raises:
        ConfigError: no address, Ray is not installed, or there is no such cluster.
    """
    if not address.strip():
        raise ConfigError("--ray: an empty address: write host:port, auto, or local for a cluster on this machine")
    try:
        import ray
    except ImportError:
        raise ConfigError("--ray: Ray is not installed: pip install ray (the extra ray)") from None
    _check_reachable(address)
    try:
        ray.init(
            address=address,
            num_cpus=processes if address == LOCAL else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
            include_dashboard=None if address != LOCAL else False,
        )
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise ConfigError(f"--ray {address}: {' '.join(str(error).split())}") from None
    return ray, processes or max(1, int(ray.cluster_resources().get("CPU", 1)))


def _check_reachable(address: str) -> None:
    """Check that something answers at ``host:port``: Ray itself tries for minutes, and then ends the process.

    Raises:
        ConfigError: nothing does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # auto, local, or an address without a port
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--ray {address}: no cluster answers there: {error}") from None
