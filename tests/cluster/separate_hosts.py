"""Separate hosts on one machine: namespaces of processes, network, files and host name.

Nothing that happens on such a host is seen outside, and killing its first process ends it. Each
has a home folder, a /tmp and an address of its own, and with keys an ssh server on port 22.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
_NAMESPACES = ["--mount", "--pid", "--net", "--uts"]
_SSHD = """
Port 22
HostKey {keys}/host
AuthorizedKeysFile {keys}/user.pub
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
"""
#: Runs as the host's first process. bash as that process also buries orphans.
_BOOT = """
set -e
mount -t tmpfs tmpfs {root}/tmp
for kept in {kept}; do
  case $kept in /tmp/*) mkdir -p {root}$kept; mount --bind $kept {root}$kept;; esac
done
mount --rbind {root}/tmp /tmp
mount -t tmpfs tmpfs /run
mkdir /run/sshd
for file in passwd hosts resolv.conf; do mount --bind {root}/$file /etc/$file; done
hostname {name}
ip link set lo up
echo up
read -r line
{serve}
while :; do wait; sleep 1; done
"""


def obstacle(ssh: bool = True) -> str | None:
    """Why there can be no hosts (with ``ssh``) on this machine, or None."""
    if ssh and not (shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
                    and shutil.which("rsync")):
        return "sshd or rsync is not installed (Debian: openssh-server, rsync)"
    if not shutil.which("ip"):
        return "ip is not installed (Debian: iproute2)"
    tried = subprocess.run(["unshare", *_NAMESPACES, "--fork", "--mount-proc", "true"],
                           capture_output=True, text=True)
    return f"no namespaces: {tried.stderr.strip()}" if tried.returncode else None


class Host:
    """A host at ``10.77.0.NUMBER``; the first one is the network's hub."""

    def __init__(self, name: str, number: int, folder: Path, hub: Host | None = None) -> None:
        self.address = f"10.77.0.{number}"
        self.root = folder / name
        self.home = self.root / "home"
        (self.root / "tmp").mkdir(parents=True)
        self.home.mkdir()
        users = Path("/etc/passwd").read_text().splitlines()
        (self.root / "passwd").write_text("\n".join(
            f"root:x:0:0:root:{self.home}:/bin/bash" if line.startswith("root:") else line
            for line in users) + "\n")
        (self.root / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {name}\n")
        (self.root / "resolv.conf").touch()  # there is nobody to ask, so nobody is asked
        (self.root / "sshd_config").write_text(_SSHD.format(keys=folder / "keys"))
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
        serve = f"{sshd} -D -e -f {self.root}/sshd_config 2> {self.root}/sshd.log &"
        boot = _BOOT.format(root=self.root, name=name,
                            serve=serve if (folder / "keys").exists() else "",
                            kept=f"{folder} {REPOSITORY} {sys.prefix}")
        self._init = subprocess.Popen(
            ["unshare", *_NAMESPACES, "--fork", "--mount-proc", "--kill-child", "bash", "-c", boot],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._init.stdin and self._init.stdout
        assert self._init.stdout.readline() == "up\n"
        self._pid = int(Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text())
        self._connect(name, hub)
        self._init.stdin.write("go\n")
        self._init.stdin.flush()

    def _connect(self, name: str, hub: Host | None) -> None:
        if hub is None:
            self.run("ip link add net type bridge && ip link set net up && "
                     f"ip addr add {self.address}/24 dev net")
            return
        subprocess.run(["nsenter", "-t", str(hub._pid), "--net", "ip", "link", "add", name, "type",
                        "veth", "peer", "name", "net", "netns", str(self._pid)], check=True)
        hub.run(f"ip link set {name} master net up")
        self.run(f"ip addr add {self.address}/24 dev net && ip link set net up && "
                 f"ip route add default via {hub.address}")

    def command(self, command: str) -> list[str]:
        """What runs a shell command on this host, as its root, in the root of the checkout."""
        path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        return ["nsenter", "-t", str(self._pid), *_NAMESPACES, "env", "-i", "-C", str(REPOSITORY),
                f"HOME={self.home}", f"PATH={path}", "LANG=C.UTF-8", "USER=root",
                "bash", "-c", command]

    def run(self, command: str, timeout: float = 60) -> str:
        """Output of a shell command; an error shows all of it."""
        done = subprocess.run(self.command(command), text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return done.stdout

    def processes(self) -> list[str]:
        """Command lines of everything that runs here, except what belongs to the host itself."""
        lines = self.run("ps -eo args=").splitlines()
        own = ("ps ", "bash -c", "sleep 1", "sshd", "/usr/sbin/sshd")
        return [line for line in lines if not line.startswith(own)]

    def stop(self) -> None:
        """End the host and everything on it."""
        os.kill(self._pid, 9)
        self._init.wait()
