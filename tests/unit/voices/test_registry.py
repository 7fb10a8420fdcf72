"""The registry of voices: consents, states, owners, evidence; what is purged is gone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from heartvoice.errors import InvalidRequestError, QuotaError, RegistryError
from heartvoice.voices.database import FILE
from heartvoice.voices.keys import check_signature, open_keys
from heartvoice.voices.limits import Limits
from heartvoice.voices.records import Consent, Examination, VoiceRecord
from heartvoice.voices.registry import Registry
from tests.support.voices import OWNER, PHRASE, REFERENCE, Clock, Says, ask, enrol


def change(tmp_path: Path, *statements: str) -> None:
    """Edit the database by other means."""
    with sqlite3.connect(tmp_path / "registry" / FILE) as connection:
        connection.execute("DROP TRIGGER IF EXISTS log_is_kept")
        connection.execute("DROP TRIGGER IF EXISTS log_is_not_changed")
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_a_verified_voice_sings_and_its_record_says_by_whose_consent(registry: Registry, clock: Clock) -> None:
    consent, checks = ask(registry), Says()
    clock.now += 60
    made = registry.enrol(OWNER, consent.id, PHRASE, [REFERENCE, PHRASE], checks)
    assert checks.examined == [consent]
    assert made.status.state == "verified"
    assert {"id": consent.id, "voice": made.status.id, "text": consent.text}.items() <= made.record.items()
    assert all(word in consent.text for word in consent.words)
    found = registry.reference(OWNER, made.status.id)
    assert (found.file, found.consent_record) == (REFERENCE, consent.id)
    assert found.consent == f"consent record {consent.id}"
    assert [each.id for each in registry.voices(OWNER)] == [made.status.id]


def test_six_different_words_are_drawn_for_each_consent(registry: Registry) -> None:
    drawn = [ask(registry).words for _ in range(5)]
    assert all(len(set(words)) == 6 for words in drawn)
    assert len(set(drawn)) == 5


def test_a_consent_counts_for_one_try_and_ten_minutes(registry: Registry, clock: Clock) -> None:
    refused = ask(registry)
    with pytest.raises(InvalidRequestError, match=r"refused: words: so it is. The consent is used up"):
        registry.enrol(OWNER, refused.id, PHRASE, [REFERENCE], Says(words=False))
    with pytest.raises(InvalidRequestError, match="was used, and counts for one try"):
        registry.enrol(OWNER, refused.id, PHRASE, [REFERENCE], Says())
    late = ask(registry)
    clock.now += 601
    checks = Says()
    with pytest.raises(InvalidRequestError, match="has expired, after 10 minutes"):
        registry.enrol(OWNER, late.id, PHRASE, [REFERENCE], checks)
    clock.now -= 1000
    with pytest.raises(InvalidRequestError, match="has expired"):
        registry.enrol(OWNER, late.id, PHRASE, [REFERENCE], checks)
    assert checks.examined == []
    assert {each.state for each in registry.voices(OWNER)} == {"purged"}


def test_checks_that_fail_to_run_keep_nothing(registry: Registry) -> None:
    class Broken:
        def examine(self, consent: Consent, phrase: bytes, references: Sequence[bytes]) -> Examination:
            raise InvalidRequestError("phrase: expected sound")

    consent = ask(registry)
    with pytest.raises(InvalidRequestError, match="phrase: expected sound"):
        registry.enrol(OWNER, consent.id, PHRASE, [REFERENCE], Broken())
    assert registry._database.run("SELECT * FROM keys") == registry._database.run("SELECT * FROM sealed") == []


def test_an_undecided_voice_sings_only_after_a_person_approves_it(registry: Registry) -> None:
    made = enrol(registry, words=True, speaker=None)
    assert made.status.state == "unverified"
    with pytest.raises(InvalidRequestError, match="is unverified and cannot sing: the checks could not decide"):
        registry.reference(OWNER, made.status.id)
    approved = registry.approve(OWNER, made.status.id, by="The Operator", why="heard it read")
    assert approved.record["approval"]["by"] == "The Operator"
    assert registry.reference(OWNER, made.status.id).file == REFERENCE
    with pytest.raises(InvalidRequestError, match=r"expected one that is unverified, voice_\w+ is verified"):
        registry.approve(OWNER, made.status.id, by="The Operator", why="again")


def test_a_revoked_voice_is_kept_and_does_not_sing(registry: Registry) -> None:
    made = enrol(registry)
    assert registry.revoke(OWNER, made.status.id) == registry.revoke(OWNER, made.status.id)
    with pytest.raises(InvalidRequestError, match="is revoked and cannot sing"):
        registry.reference(OWNER, made.status.id)
    assert registry.voice(OWNER, made.status.id).record == made.record
    registry.purge(OWNER, made.status.id)
    with pytest.raises(InvalidRequestError, match="is purged, there is nothing to revoke"):
        registry.revoke(OWNER, made.status.id)


def test_a_purge_leaves_a_signed_tombstone_and_no_byte_of_the_voice(registry: Registry, tmp_path: Path) -> None:
    others = [enrol(registry) for _ in range(2)]
    made = enrol(registry)
    gone = made.status.id
    key = registry._vault.key(gone)
    secrets = [row[0] for row in registry._database.run("SELECT wrapped FROM keys WHERE subject = ?", gone)]
    secrets += [row[0] for row in registry._database.run("SELECT content FROM sealed WHERE subject = ?", gone)]
    raw = (tmp_path / "registry" / FILE).read_bytes()
    assert len(secrets) == 5
    assert all(each in raw for each in secrets[:1])
    assert not any(each in raw for each in (REFERENCE[:40], PHRASE[:40], b"J. Doe", key))
    purged = registry.purge(OWNER, gone)
    assert registry.purge(OWNER, gone) == purged
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert [path.name for path in files if path.parent.name == "registry"] == [FILE]
    pieces = [each[at : at + 24] for each in [*secrets, key, REFERENCE] for at in range(0, len(each) - 24, 64)]
    assert [path for path, content in files.items() for piece in pieces if piece in content] == []
    told = json.loads(purged.content)
    assert (told["voice"], told["was"], told["consent"]) == (gone, "verified", made.status.consent)
    check_signature(open_keys(tmp_path / "keys", create=False).signing.public_key(), "tombstone", *purged_pair(purged))
    with pytest.raises(InvalidRequestError, match="is purged and cannot sing"):
        registry.reference(OWNER, gone)
    assert [registry.reference(OWNER, each.status.id).file for each in others] == [REFERENCE] * 2


def purged_pair(made: VoiceRecord) -> tuple[bytes, bytes]:
    return made.content, made.signature


def test_another_owner_is_told_what_a_stranger_to_the_id_is_told(registry: Registry) -> None:
    made, unknown = enrol(registry).status.id, "voice_" + "0" * 32
    consent = ask(registry).id
    calls: list[Callable[[str], object]] = [
        lambda voice: registry.voice("thief", voice),
        lambda voice: registry.reference("thief", voice),
        lambda voice: registry.export("thief", voice),
        lambda voice: registry.revoke("thief", voice),
        lambda voice: registry.purge("thief", voice),
        lambda voice: registry.approve("thief", voice, by="me", why="so"),
    ]
    for call in calls:
        said = []
        for voice in (made, unknown):
            with pytest.raises(InvalidRequestError) as error:
                call(voice)
            said.append((type(error.value), str(error.value).replace(voice, "ID")))
        assert said[0] == said[1]
    for each in (consent, "consent_" + "0" * 32):
        with pytest.raises(InvalidRequestError, match=f"consent: there is none '{each}'"):
            registry.enrol("thief", each, PHRASE, [REFERENCE], Says())
    assert registry.voices("thief") == []
    assert registry.enrol(OWNER, consent, PHRASE, [REFERENCE], Says()).status.state == "verified"


def test_an_owner_tries_five_times_an_hour(registry: Registry, clock: Clock) -> None:
    for _ in range(5):
        enrol(registry)
    consent = ask(registry)
    with pytest.raises(QuotaError, match="at most 5 enrolments tried in an hour"):
        registry.enrol(OWNER, consent.id, PHRASE, [REFERENCE], Says())
    assert enrol(registry, "another").status.state == "verified"
    clock.now += 3601
    assert enrol(registry).status.state == "verified"


def test_recordings_and_texts_have_limits(opened: Callable[..., Registry]) -> None:
    registry = opened(limits=Limits(phrase_bytes=100, reference_bytes=100, references=1, consents_per_hour=1))
    consent = ask(registry)
    for phrase, references, message in (
        (b"x" * 101, [b"x"], "phrase: expected at most"),
        (b"x", [b"x" * 101], "reference: expected at most"),
        (b"x", [], "expected 1 to 1, got 0"),
        (b"x", [b"x", b"y"], "expected 1 to 1, got 2"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            registry.enrol(OWNER, consent.id, phrase, references, Says())
    assert registry.open_consent(OWNER, consent.id) == consent
    with pytest.raises(QuotaError, match="at most 1 consents"):
        ask(registry)
    for told in ({"speaker": " "}, {"purpose": "a\nb"}, {"service": "x" * 101}, {"locale": "xx"}):
        with pytest.raises(InvalidRequestError, match=f"^{next(iter(told))}: "):
            registry.consent("x", **{"speaker": "J", "purpose": "p", "service": "s", **told})


def test_what_was_begun_and_left_is_purged(registry: Registry, clock: Clock, tmp_path: Path) -> None:
    consent = ask(registry)
    _, voice = registry._begin(OWNER, consent.id)
    unread = ask(registry)
    with pytest.raises(InvalidRequestError, match="is pending and cannot sing"):
        registry.reference(OWNER, voice)
    clock.now += 3601
    ask(registry)
    assert json.loads(registry.voice(OWNER, voice).content)["why"] == "abandoned"
    assert registry._database.run("SELECT * FROM keys WHERE subject = ?", unread.id) == []


def test_an_export_holds_all_that_is_kept_and_verifies_by_itself(registry: Registry) -> None:
    made = enrol(registry)
    files = registry.export(OWNER, made.status.id)
    assert {"record.json", "record.sig", "phrase.wav", "reference-1.flac", "log.json"} < set(files)
    assert (files["phrase.wav"], files["reference-1.flac"]) == (PHRASE, REFERENCE)
    public = load_pem_public_key(files["records.pub.pem"])
    check_signature(public, "consent record", files["record.json"], files["record.sig"])  # type: ignore[arg-type]
    with pytest.raises(RegistryError, match="its signature is not of this content"):
        check_signature(public, "tombstone", files["record.json"], files["record.sig"])  # type: ignore[arg-type]
    assert [each["state"] for each in json.loads(files["log.json"])] == ["open", "used", "pending", "verified"]
    registry.purge(OWNER, made.status.id)
    assert set(registry.export(OWNER, made.status.id)) == {
        "tombstone.json", "tombstone.sig", "records.pub.pem", "log.json",
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- attacks


def _log_edit(old: str, new: str) -> str:
    return f"UPDATE log SET entry = replace(entry, '{old}', '{new}')"


@pytest.mark.parametrize(
    "statement",
    [
        _log_edit('"revoked"', '"verified"'),
        "DELETE FROM log WHERE n = 2",
        "DELETE FROM log WHERE n = (SELECT max(n) FROM log)",
        "DELETE FROM log",
        "INSERT INTO log SELECT n + 1, entry, hash, signature FROM log ORDER BY n DESC LIMIT 1",
        "UPDATE log SET signature = (SELECT signature FROM log LIMIT 1) WHERE n = (SELECT max(n) FROM log)",
        "UPDATE log SET entry = '[]' WHERE n = 3",
        "UPDATE log SET entry = '{' WHERE n = 1",
        "UPDATE about SET value = 'registry_0' WHERE name = 'registry'",
        "DROP TABLE log",
    ],
)
def test_a_log_that_was_edited_is_found(
    registry: Registry, opened: Callable[..., Registry], tmp_path: Path, statement: str
) -> None:
    made = enrol(registry)
    registry.revoke(OWNER, made.status.id)
    change(tmp_path, statement)
    with pytest.raises(RegistryError):
        opened(create=False)


def test_an_older_copy_is_found_and_its_revoked_voice_does_not_sing(
    registry: Registry, opened: Callable[..., Registry], tmp_path: Path
) -> None:
    made, database = enrol(registry), tmp_path / "registry" / FILE
    older = database.read_bytes()
    registry.revoke(OWNER, made.status.id)
    registry.close()
    database.write_bytes(older)
    with pytest.raises(RegistryError, match=r"ends at entry 4, and entry 5 was written: this is an older copy"):
        opened(create=False)


def test_an_entry_that_is_taken_back_under_a_running_process_is_found(registry: Registry, tmp_path: Path) -> None:
    made = enrol(registry)
    change(tmp_path, "UPDATE log SET hash = 'x' WHERE n = (SELECT max(n) FROM log)")
    with pytest.raises(RegistryError, match="entry 4 of its log was changed or removed"):
        registry.reference(OWNER, made.status.id)


SWAP = (
    "UPDATE sealed SET content = (SELECT content FROM sealed s WHERE s.subject {} AND s.part = '{}') WHERE part = '{}'"
)


@pytest.mark.parametrize(
    "statement",
    [
        SWAP.format("<> sealed.subject", "recording 1", "recording 1"),
        SWAP.format("= sealed.subject", "recording 0", "recording 1"),
        SWAP.format("<> sealed.subject", "record", "record"),
        "UPDATE keys SET wrapped = (SELECT wrapped FROM keys k WHERE k.subject <> keys.subject)",
        "UPDATE sealed SET subject = subject || 'x'",
        "UPDATE sealed SET content = zeroblob(8)",
        "DELETE FROM keys",
    ],
)
def test_swapped_and_edited_parts_are_found(registry: Registry, tmp_path: Path, statement: str) -> None:
    mine = enrol(registry).status.id
    registry.enrol("thief", ask(registry, "thief").id, PHRASE, [b"the thief's voice"], Says())
    change(tmp_path, statement)
    with pytest.raises(RegistryError):
        registry.reference(OWNER, mine)


def test_a_voice_that_is_purged_needs_no_sound_record(registry: Registry, tmp_path: Path) -> None:
    made = enrol(registry)
    change(tmp_path, "DELETE FROM keys")
    assert registry.revoke(OWNER, made.status.id).state == "revoked"
    assert registry.purge(OWNER, made.status.id).status.state == "purged"
    change(tmp_path, "UPDATE tombstones SET content = replace(content, 'purged', 'kept')")
    with pytest.raises(RegistryError, match="its tombstone is not the one that the log names"):
        registry.voice(OWNER, made.status.id)


def test_a_stolen_database_opens_with_its_own_keys_alone(registry: Registry, tmp_path: Path) -> None:
    made = enrol(registry)
    with pytest.raises(InvalidRequestError, match=r"lacks wrapping.key, records.key"):
        Registry(tmp_path / "registry", keys=tmp_path / "none", create=True)
    with (
        Registry(tmp_path / "own", keys=tmp_path / "others", create=True),
        pytest.raises(RegistryError, match="made with other keys"),
    ):
        Registry(tmp_path / "registry", keys=tmp_path / "others")
    (tmp_path / "keys" / "wrapping.key").chmod(0o644)
    with pytest.raises(InvalidRequestError, match="expected a secret of mode 0600"):
        Registry(tmp_path / "registry", keys=tmp_path / "keys")
    raw = (tmp_path / "registry" / FILE).read_bytes()
    assert made.content not in raw
    assert (tmp_path / "registry").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "registry" / FILE).stat().st_mode & 0o777 == 0o600


def test_a_thief_of_the_database_reads_nothing_and_cannot_make_it_open_with_keys_of_his_own(
    registry: Registry, tmp_path: Path
) -> None:
    made = enrol(registry)
    registry.close()
    raw = (tmp_path / "registry" / FILE).read_bytes()
    told = made.record
    hidden = [REFERENCE[:40], PHRASE[:40], made.content[:60], *(told[name].encode() for name in ("speaker", "purpose"))]
    hidden += [told["text"][:30].encode(), told["transcript"].encode(), *(word.encode() for word in told["words"])]
    assert [each for each in hidden if each in raw] == []
    with Registry(tmp_path / "own", keys=tmp_path / "others", create=True) as own:
        enrol(own)
    others = open_keys(tmp_path / "others", create=False)
    change(tmp_path, f"UPDATE about SET value = '{others.fingerprint}' WHERE name = 'keys'")
    with pytest.raises(RegistryError, match="its signature is not of this content by this registry's key"):
        Registry(tmp_path / "registry", keys=tmp_path / "others")
    with pytest.raises(RegistryError, match="made with other keys"):
        Registry(tmp_path / "registry", keys=tmp_path / "keys")


def test_a_voice_of_another_registry_of_the_same_keys_does_not_sing_here(registry: Registry, tmp_path: Path) -> None:
    mine = enrol(registry).status.id
    with Registry(tmp_path / "other", keys=tmp_path / "keys", create=True) as other:
        theirs = other.enrol(OWNER, ask(other).id, PHRASE, [b"another's voice"], Says()).status.id
    for table, columns in (("keys", "wrapped"), ("sealed", "part, content")):
        change(
            tmp_path,
            f"ATTACH '{tmp_path / 'other' / FILE}' AS other",
            f"DELETE FROM {table} WHERE subject = '{mine}'",
            f"INSERT INTO {table} (subject, {columns}) SELECT '{mine}', {columns} FROM other.{table} "
            f"WHERE subject = '{theirs}'",
        )
    with pytest.raises(RegistryError, match="not what was written here"):
        registry.reference(OWNER, mine)


@pytest.mark.parametrize(
    "statement",
    [
        SWAP.format("<> sealed.subject", "consent", "consent"),
        "UPDATE sealed SET content = zeroblob(80)",
        "UPDATE keys SET wrapped = (SELECT wrapped FROM keys k WHERE k.subject <> keys.subject)",
        "DELETE FROM sealed",
    ],
)
def test_a_consent_that_was_swapped_or_edited_enrols_nobody(registry: Registry, tmp_path: Path, statement: str) -> None:
    mine = ask(registry).id
    ask(registry, "thief")
    change(tmp_path, statement)
    checks = Says()
    with pytest.raises(RegistryError):
        registry.enrol(OWNER, mine, PHRASE, [REFERENCE], checks)
    assert checks.examined == []
    assert registry.voices(OWNER) == []


def test_no_registry_is_made_by_accident(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"expected a folder with registry\.sqlite3"):
        Registry(tmp_path / "none", keys=tmp_path / "keys")
    assert list(tmp_path.iterdir()) == []


def test_two_processes_see_each_others_changes(registry: Registry, opened: Callable[..., Registry]) -> None:
    other = opened()
    made = enrol(registry)
    assert other.reference(OWNER, made.status.id).file == REFERENCE
    other.revoke(OWNER, made.status.id)
    with pytest.raises(InvalidRequestError, match="is revoked"):
        registry.reference(OWNER, made.status.id)
