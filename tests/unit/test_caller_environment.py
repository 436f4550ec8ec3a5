"""What goes from the caller's shell to the lab's own processes, and that nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ailab import downloads
from ailab.caller_environment import passed_on
from ailab.settings import MirrorsSection

GIVEN = [
    "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "LANGUAGE", "LC_ALL", "LC_TIME", "TZ", "AILAB_HOME",
    "AILAB_UV", "AILAB_LANG", "DOCKER_HOST", "XDG_DATA_HOME", "https_proxy", "HTTP_PROXY", "no_proxy", "ALL_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "UV_DEFAULT_INDEX", "UV_INDEX",
    "UV_INDEX_URL", "PIP_INDEX_URL", "UV_PYTHON_INSTALL_MIRROR", "npm_config_registry", "npm_config_cafile",
    "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH",
]  # fmt: skip
KEPT_BACK = [
    "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "AILAB_REGISTRY_PASSWORD", "AILAB_REGISTRY_USER", "SSH_AUTH_SOCK",
    "SUDO_COMMAND", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONINSPECT", "PYTHONWARNINGS",
    "LD_PRELOAD", "LD_AUDIT", "BASH_ENV", "NODE_OPTIONS", "UV_PYTHON", "UV_PUBLISH_TOKEN", "PIP_CONFIG_FILE",
    "npm_config__auth", "npm_config_prefix", "LANGUAGES_KEY", "TZ_TOKEN", "VIRTUAL_ENV",
]  # fmt: skip


def test_what_is_read_is_passed_on_and_nothing_else() -> None:
    environ = {name: f"value of {name}" for name in (*GIVEN, *KEPT_BACK)}
    assert passed_on(environ) == {name: f"value of {name}" for name in GIVEN}


def test_downloads_go_the_same_way_from_the_daemon_as_from_the_shell() -> None:
    environ = {name: f"https://{name}" for name in GIVEN}
    for one in ({}, environ, *({name: value} for name, value in environ.items())):
        assert downloads.variables(MirrorsSection(), passed_on(one)) == downloads.variables(MirrorsSection(), one)


def test_the_installed_command_does_not_see_the_callers_packages(tmp_path: Path) -> None:
    (tmp_path / "typing_extensions.py").write_text("raise SystemExit('a foreign package')\n")
    script = tmp_path / "ailab"
    script.write_text("import sys\nfrom ailab.__main__ import isolated_main\nsys.exit(isolated_main())\n")
    done = subprocess.run(
        [sys.executable, script, "--version"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and "foreign" not in done.stdout + done.stderr, done.stderr
