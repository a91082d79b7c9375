"""`deploy/hivemq` and `deploy/emqx`, as far as they can be judged without those brokers."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.deploy.deployed import DEPLOY, make_secrets
from uns_topics.access import enterprise_access
from uns_topics.acl_files import emqx_acl
from uns_topics.transfers import DEFAULT_CHUNK_BYTES, MAX_CHUNKS, WRAPPING_BYTES

USERS = ("aggregator", "observer", "berlin", "gdansk")


def test_hivemq_passwords_are_put_in_place(tmp_path: Path) -> None:
    arguments = ["--broker", "enterprise", "--san", "DNS:enterprise", *(w for u in USERS for w in ("--user", u))]
    arguments += ["--hivemq", str(DEPLOY / "hivemq")]
    make_secrets(tmp_path, *arguments)
    home = tmp_path / "enterprise"
    root = ET.fromstring((home / "rbac/credentials.xml").read_text("utf-8"))
    users = {str(user.findtext("name")): str(user.findtext("password")) for user in root.iter("user")}
    assert set(users) == set(USERS)
    for user, said in users.items():
        salt, iterations, digest = said.split(":")
        password = (home / user / "password").read_text("utf-8").strip().encode()
        wanted = hashlib.pbkdf2_hmac("sha512", password, base64.b64decode(salt, validate=True), int(iterations), 64)
        assert base64.b64decode(digest, validate=True) == wanted
    assert len({said.split(":")[0] for said in users.values()}) == len(USERS)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    make_secrets(tmp_path, *arguments)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_hivemq_opens_its_keystore(tmp_path: Path) -> None:
    make_secrets(tmp_path, "--broker", "e", "--san", "DNS:e", "--hivemq", str(DEPLOY / "hivemq"))
    store = ET.fromstring((tmp_path / "e/hivemq/config.xml").read_text("utf-8")).find(".//keystore")
    assert store is not None
    password = str(store.findtext("password"))
    assert store.findtext("private-key-password") == password
    file = tmp_path / "e/hivemq" / Path(str(store.findtext("path"))).name
    command = ["openssl", "pkcs12", "-in", file, "-passin", f"pass:{password}", "-nokeys"]
    assert b"BEGIN CERTIFICATE" in subprocess.run(command, check=True, capture_output=True, timeout=30).stdout


def test_hivemq_limits_fit_transfers() -> None:
    root = ET.fromstring((DEPLOY / "hivemq/config.xml").read_text("utf-8"))
    assert int(str(root.findtext(".//max-packet-size"))) > DEFAULT_CHUNK_BYTES + WRAPPING_BYTES
    assert int(str(root.findtext(".//max-queue-size"))) >= 3 * MAX_CHUNKS
    assert [one.tag for one in root.findall("./listeners/*")] == ["tls-tcp-listener"]
    extension = ET.fromstring((DEPLOY / "hivemq/extension-config.xml").read_text("utf-8"))
    assert extension.findtext("password-type") == "HASHED"
    assert extension.findtext("next-extension-instead-of-fail") == "false"


def test_credentials_in_the_repository_let_nobody_in() -> None:
    root = ET.fromstring((DEPLOY / "hivemq/credentials.xml").read_text("utf-8"))
    users = {user.findtext("name"): user.findtext("password") for user in root.iter("user")}
    assert users == {user: f"@{user}@" for user in USERS}


def test_emqx_denies_what_no_rule_allows() -> None:
    conf = (DEPLOY / "emqx/emqx.conf").read_text("utf-8")
    assert "no_match = deny" in conf
    assert conf.count("{") == conf.count("}")
    assert int(re.findall(r"^  max_mqueue_len = (\d+)", conf, re.MULTILINE)[0]) >= 3 * MAX_CHUNKS
    acl = (DEPLOY / "emqx/acl.conf").read_text("utf-8")
    assert acl == emqx_acl(enterprise_access())
    assert acl.rstrip().endswith("{deny, all}.")


def test_wrong_use_of_make_certificates_is_said(tmp_path: Path) -> None:
    for arguments, sentence in (
        ((), "name a folder"),
        ((tmp_path, "--user", "x"), "--user stands before the first --broker"),
        ((tmp_path, "--broker"), "--broker needs a value"),
        ((tmp_path, "--nonsense", "x"), "unknown option --nonsense"),
    ):
        ended = subprocess.run([DEPLOY / "make-certificates", *arguments], capture_output=True, text=True, timeout=30)
        assert (ended.returncode, sentence in ended.stderr) == (2, True)
