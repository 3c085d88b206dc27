"""Redis servers together: a cluster, and a primary and its replica under the eyes of three sentinels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final, Self

from testservers.base import PATIENCE, ServerError, find_program, free_port, wait_until
from testservers.group import Group
from testservers.redis import PROGRAMS, RedisServer, fields

__all__ = ["RedisCluster", "RedisSentinel"]

_CALM: Final = 60_000
"""After how many milliseconds of silence a server counts as lost while its group is not alert."""

_SLOTS: Final = ((0, 5460), (5461, 10922), (10923, 16383))


class RedisCluster(Group):
    """Three primaries, each with one replica.

    Args:
        folder: Its files.
        announced: The ports at which clients are told to find the primaries: those of proxies. There are no replicas
            then, since these would come by the proxies too.
        node_timeout: After how many milliseconds of silence a node counts as lost while the cluster is `alert`.
        appendonly: As for `RedisServer`.
        extra: More arguments of each server.

    Attributes:
        nodes: The six servers, primaries first; which are primaries changes with each failover.
    """

    programs: ClassVar[dict[str, str]] = PROGRAMS

    def __init__(
        self,
        folder: Path,
        *,
        announced: Sequence[int] = (),
        node_timeout: int = 1500,
        appendonly: bool = False,
        extra: Sequence[str] = (),
    ) -> None:
        super().__init__()
        more = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout))
        more += ("--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0", *extra)
        told = [("--cluster-announce-port", str(port)) for port in announced] or [()] * 6
        self.nodes: Final = [
            RedisServer(
                folder / f"node{number}",
                port=free_port(offsets=(0, 10000)),
                appendonly=appendonly,
                extra=(*more, *telling),
            )
            for number, telling in enumerate(told)
        ]
        self.members = [*self.nodes]
        self._node_timeout: Final = node_timeout
        self._ports: Final = announced or [node.port for node in self.nodes]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{self.nodes[0].host}:{port}" for port in self._ports[:3])

    def join(self) -> None:
        """Make a cluster of servers that know of nobody yet; others find each other by themselves."""
        first = self.nodes[0]
        if _cluster_info(first)["cluster_known_nodes"] != "1":
            return
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                node.command("CLUSTER", "ADDSLOTSRANGE", *_SLOTS[number])
            if node is not first:
                node.command("CLUSTER", "MEET", first.host, first.port, first.port + 10000)
        wait_until(
            lambda: all(_cluster_info(node)["cluster_known_nodes"] == str(len(self.nodes)) for node in self.nodes),
            "the servers of the cluster to meet",
        )
        for primary, replica in zip(self.nodes[:3], self.nodes[3:], strict=False):
            replica.command("CLUSTER", "REPLICATE", primary.command("CLUSTER", "MYID"))

    def ready(self) -> bool:
        """Tell whether all slots are served, and every primary has a replica that is up to date with it."""
        if any(_cluster_info(node)["cluster_state"] != "ok" for node in self.nodes):
            return False
        roles = [node.info("replication") for node in self.nodes]
        linked = [role["master_link_status"] == "up" for role in roles if role["role"] == "slave"]
        served = [role["connected_slaves"] != "0" for role in roles if role["role"] == "master"]
        agreed = {tuple(sorted(self._view(node))) for node in self.nodes}
        replicas = len(self.nodes) - 3
        return len(linked) == replicas and sum(served) == replicas and all(linked) and len(agreed) == 1

    def watch(self) -> None:
        for node in self.nodes:
            if node.pid is not None:
                limit = self._node_timeout if self.is_alert else _CALM
                node.command("CONFIG", "SET", "cluster-node-timeout", limit)

    def heal(self) -> None:
        """Start again what is dead, resume what is paused, and wait until the cluster is whole."""
        for node in self.nodes:
            node.resume()
        self.start()

    def primaries(self) -> list[RedisServer]:
        """Give the primaries, as most of the living see it."""
        return [node for node in self.nodes if node.pid is not None and node.info("replication")["role"] == "master"]

    def primary_of(self, key: str | bytes) -> RedisServer:
        """Give the primary that a key is on."""
        slot = self.primaries()[0].command("CLUSTER", "KEYSLOT", key)
        for node in self.primaries():
            for first, last, owner, *_ in node.command("CLUSTER", "SLOTS"):
                if first <= slot <= last and owner[1] == node.port:
                    return node
        raise ServerError(f"nobody serves slot {slot}")

    def replica_of(self, primary: RedisServer) -> RedisServer:
        """Give the replica of a primary."""
        for node in self.nodes:
            if node.pid is not None and node.info("replication").get("master_port") == str(primary.port):
                return node
        raise ServerError(f"{primary.address} has no replica")

    def failed_over(self, lost: RedisServer, patience: float = PATIENCE) -> None:
        """Wait until another has taken the place of *lost*, and all know."""
        living = [node for node in self.nodes if node is not lost]
        wait_until(lambda: len(self.primaries()) == 3, "the failover", patience)
        wait_until(lambda: all(_cluster_info(node)["cluster_state"] == "ok" for node in living), "the new primary")

    def _view(self, node: RedisServer) -> list[tuple[str, str]]:
        """Give who has which role and slots, as a node sees it."""
        lines = (line.split() for line in node.command("CLUSTER", "NODES").decode().splitlines())
        return [(line[0], f"{line[2].replace('myself,', '')} {line[3]} {line[8:]}") for line in lines]


def _cluster_info(node: RedisServer) -> dict[str, str]:
    return fields(node.command("CLUSTER", "INFO"))


class _Sentinel(RedisServer):
    programs: ClassVar[dict[str, str]] = {**PROGRAMS, "redis-sentinel": "redis-sentinel"}

    def __init__(self, folder: Path, monitored: list[str]) -> None:
        super().__init__(folder)
        self._monitored = monitored

    def prepare(self) -> None:
        if not (self.folder / "sentinel.conf").exists():  # it keeps there what it learns
            lines = [
                f"port {self.port}",
                f"bind {self.host}",
                "protected-mode no",
                f"dir {self.folder}",
                f"unixsocket {self.socket}",
                *self._monitored,
            ]
            self.write("sentinel.conf", "\n".join([*lines, ""]))

    def command_line(self) -> list[str]:
        return [find_program("redis-sentinel") or "redis-sentinel", str(self.folder / "sentinel.conf")]

    def start(self) -> Self:
        super().start()
        with suppress(ServerError):  # Redis before 7.0 has no such command, and a start takes ten seconds more
            self.command("SENTINEL", "DEBUG", "info-period", 500)
        return self


class RedisSentinel(Group):
    """A primary and its replicas, and three sentinels of whom two have to agree.

    Args:
        folder: Its files.
        down_after: After how many milliseconds of silence the primary counts as lost while the group is `alert`.
        appendonly: As for `RedisServer`.
        extra: More arguments of the two servers.

    Attributes:
        service: The name by which clients ask for the primary.
        nodes: The two servers; which is the primary changes with each failover.
        sentinels: The three sentinels.
    """

    programs: ClassVar[dict[str, str]] = _Sentinel.programs

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 1,
        down_after: int = 1000,
        appendonly: bool = False,
        extra: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.service: Final = "coatcheck"
        more = ("--repl-diskless-sync-delay", "0", *extra)
        self.nodes: Final = [
            RedisServer(folder / f"node{n}", appendonly=appendonly, extra=more) for n in range(1 + replicas)
        ]
        monitored = [
            f"sentinel monitor {self.service} {self.nodes[0].host} {self.nodes[0].port} 2",
            f"sentinel down-after-milliseconds {self.service} {down_after}",
            f"sentinel failover-timeout {self.service} 2000",
        ]
        self.sentinels: Final = [_Sentinel(folder / f"sentinel{n}", monitored) for n in range(3)]
        self.members = [*self.nodes, *self.sentinels]
        self._down_after: Final = down_after
        self._primary = self.nodes[0]

    @property
    def url(self) -> str:
        addresses = ",".join(sentinel.address for sentinel in self.sentinels)
        return f"redis+sentinel://{addresses}/{self.service}"

    def start(self) -> Self:
        """Start those that are not running, and wait until all work together.

        A server has forgotten its part when it is started again, so it is told; and the sentinels come last, since they
        look for replicas once and then not for seconds.
        """
        for node in self.nodes:
            node.start()
        self._replicate()
        return super().start()

    def watch(self) -> None:
        for sentinel in self.sentinels:
            if sentinel.pid is not None:
                limit = self._down_after if self.is_alert else _CALM
                sentinel.command("SENTINEL", "SET", self.service, "down-after-milliseconds", limit)

    def _replicate(self) -> None:
        """Tell the two servers their parts, and wait until the replica has all of the primary."""
        self._primary = primary = self.primary()
        for node in self.nodes:
            node.command("REPLICAOF", *(("NO", "ONE") if node is primary else (primary.host, primary.port)))
        wait_until(lambda: all(map(_is_linked, self.replicas_of(primary))), "the replicas")

    def ready(self) -> bool:
        """Tell whether the replicas are up to date, and all sentinels know of them and of each other.

        Which of the two is the primary they may have decided anew a moment ago.
        """
        self._primary = self.primary()
        for sentinel in self.sentinels:
            flat = sentinel.command("SENTINEL", "MASTER", self.service)
            seen = dict(zip(flat[::2], flat[1::2], strict=True))
            known = (seen[b"flags"], int(seen[b"num-slaves"]), seen[b"num-other-sentinels"], int(seen[b"port"]))
            if known != (b"master", len(self.nodes) - 1, b"2", self._primary.port):
                return False
            for flat in sentinel.command("SENTINEL", "REPLICAS", self.service):
                seen = dict(zip(flat[::2], flat[1::2], strict=True))
                if (seen[b"flags"], seen[b"master-link-status"]) != (b"slave", b"ok"):
                    return False
        return all(map(_is_linked, self.replicas_of(self._primary)))

    def primary(self) -> RedisServer:
        """Give the server that the sentinels call the primary, or last called so."""
        for sentinel in self.sentinels:
            if sentinel.pid is not None:
                _, port = sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
                return next(node for node in self.nodes if node.port == int(port))
        return self._primary

    def primaries(self) -> list[RedisServer]:
        """Give the primary, as of a cluster."""
        return [self.primary()]

    def replica_of(self, primary: RedisServer) -> RedisServer:
        """Give the other one, or the first of several."""
        return self.replicas_of(primary)[0]

    def replicas_of(self, primary: RedisServer) -> list[RedisServer]:
        """Give the others."""
        return [node for node in self.nodes if node is not primary]

    def failed_over(self, lost: RedisServer, patience: float = PATIENCE) -> None:
        """Wait until the other one has taken the place of *lost*, and all sentinels know."""
        wait_until(
            lambda: all(self._knows_other(sentinel, lost) for sentinel in self.sentinels), "the failover", patience
        )
        wait_until(lambda: self.primary().info("replication")["role"] == "master", "the new primary")

    def heal(self) -> None:
        """Start again what is dead, resume what is paused, and wait until all is whole.

        Not while a failover goes on: see `failed_over`. Sentinels that do not come to one view of who is there are told
        to forget what they know, and find it out anew; the servers' data is not touched.
        """
        for member in self.members:
            member.resume()
        for server in (*self.nodes, *self.sentinels):
            server.start()
        try:
            self._replicate()
            wait_until(self.ready, "one view of the sentinels", 30)
        except ServerError:
            for sentinel in self.sentinels:
                sentinel.command("SENTINEL", "RESET", self.service)
            self.start()
        self.watch()

    def stop(self) -> None:
        self._remember()
        super().stop()

    def kill(self) -> None:
        self._remember()
        super().kill()

    def _remember(self) -> None:
        with suppress(OSError, ServerError):
            self._primary = self.primary()

    def _knows_other(self, sentinel: RedisServer, lost: RedisServer) -> bool:
        _, port = sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return int(port) != lost.port


def _is_linked(replica: RedisServer) -> bool:
    return replica.info("replication").get("master_link_status") == "up"
