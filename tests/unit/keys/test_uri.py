from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.errors import Malformed
from custody.keys.uri import KeyUri, Pkcs11Uri, TpmUri, parse_key_uri

FULL = (
    "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil%2C%20Inc."
    ";serial=4711;model=1.0;library-manufacturer=Snake%20Oil;library-description=Soft%20Token"
    ";library-version=3.7;slot-id=327;slot-manufacturer=ACME;slot-description=Left%20port"
    ";object=my-certificate;id=%69%95%3E%5C%F4%BD%EC%91;type=private"
    "?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=fd:3"
)

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
maybe = st.none() | words
pkcs11_uris = st.builds(
    Pkcs11Uri,
    token=maybe,
    manufacturer=maybe,
    serial=maybe,
    model=maybe,
    library_manufacturer=maybe,
    library_description=maybe,
    library_version=st.none() | st.tuples(st.integers(0, 999), st.integers(0, 999)),
    slot_id=st.none() | st.integers(0, 2**64 - 1),
    slot_manufacturer=maybe,
    slot_description=maybe,
    object=maybe,
    id=st.none() | st.binary(max_size=20),
    type=st.sampled_from([None, "public", "private", "cert", "secret-key", "data"]),
    module_name=maybe,
    pin_source=maybe,
)
tpm_uris = st.builds(
    TpmUri,
    handle=st.none() | st.integers(0x81000000, 0x81FFFFFF),
    tcti=maybe,
    pin_source=maybe,
)


def test_every_attribute_is_read() -> None:
    """All path and query attributes of RFC 7512 are read and percent-decoded."""
    uri = parse_key_uri(FULL)
    assert (
        Pkcs11Uri(
            token="The Software PKCS#11 Softtoken",
            manufacturer="Snake Oil, Inc.",
            serial="4711",
            model="1.0",
            library_manufacturer="Snake Oil",
            library_description="Soft Token",
            library_version=(3, 7),
            slot_id=327,
            slot_manufacturer="ACME",
            slot_description="Left port",
            object="my-certificate",
            id=bytes.fromhex("69953e5cf4bdec91"),
            type="private",
            module_path="/usr/lib/softhsm/libsofthsm2.so",
            pin_source="fd:3",
        )
        == uri
    )


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("pkcs11:", Pkcs11Uri()),
        ("pkcs11:id=%00%ff", Pkcs11Uri(id=b"\0\xff")),
        ("pkcs11:token=caf%C3%A9", Pkcs11Uri(token="café")),
        ("pkcs11:library-version=2", Pkcs11Uri(library_version=(2, 0))),
        ("pkcs11:token=a&b", Pkcs11Uri(token="a&b")),
        ("pkcs11:?module-name=softhsm2", Pkcs11Uri(module_name="softhsm2")),
        ("pkcs11:?pin-source=file:/run/pin", Pkcs11Uri(pin_source="file:/run/pin")),
        ("tpm:", TpmUri()),
        ("tpm:handle=0x81010020", TpmUri(handle=0x81010020)),
        (
            "tpm:handle=0x81010020?tcti=swtpm:path=/run/tpm.sock&pin-source=/run/pin",
            TpmUri(handle=0x81010020, tcti="swtpm:path=/run/tpm.sock", pin_source="/run/pin"),
        ),
        ("tpm:?tcti=swtpm:host=127.0.0.1,port=2321", TpmUri(tcti="swtpm:host=127.0.0.1,port=2321")),
    ],
)
def test_forms(text: str, uri: KeyUri) -> None:
    """Each written form reads as the URI it stands for."""
    assert uri == parse_key_uri(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a key URI"),
        ("alice", "not a key URI"),
        ("PKCS11:token=a", "scheme"),
        ("file:/etc/key", "scheme"),
        ("pkcs11:token=a;token=b", "twice"),
        ("pkcs11:slot-id=1;slot-id=1", "twice"),
        ("pkcs11:colour=red", "unknown attribute"),
        ("pkcs11:x-vendor=1", "unknown attribute"),
        ("pkcs11:pin-source=fd:3", "unknown attribute"),
        ("pkcs11:?token=a", "unknown attribute"),
        ("pkcs11:token", "unknown attribute"),
        ("pkcs11:token=a;", "unknown attribute"),
        ("pkcs11:;token=a", "unknown attribute"),
        ("pkcs11:token=a b", "percent-encoded"),
        ("pkcs11:token=é", "percent-encoded"),
        ("pkcs11:token=a/b", "percent-encoded"),
        ("pkcs11:token=%4", "percent-encoded"),
        ("pkcs11:token=%zz", "percent-encoded"),
        ("pkcs11:token=a#b", "percent-encoded"),
        ("pkcs11:token=%ff", "UTF-8"),
        ("pkcs11:token=%00", "zero byte"),
        ("pkcs11:slot-id=-1", "decimal"),
        ("pkcs11:slot-id=01", "decimal"),
        ("pkcs11:slot-id=18446744073709551616", "decimal"),
        ("pkcs11:library-version=1.2.3", "MAJOR"),
        ("pkcs11:type=key", "none of"),
        ("pkcs11:?module-path=lib.so", "absolute"),
        ("pkcs11:?module-path=/a.so&module-name=softhsm2", "not both"),
        ("tpm:handle=0x80000001", "persistent"),
        ("tpm:handle=81010020", "persistent"),
        ("tpm:handle=0x8101002", "persistent"),
        ("tpm:object=key", "unknown attribute"),
        ("tpm:?module-name=x", "unknown attribute"),
        ("pkcs11:token=" + "a" * 5000, "not a key URI"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    """What RFC 7512 does not allow, or we do not know, is malformed and says where."""
    with pytest.raises(Malformed, match=reason):
        parse_key_uri(text)


@pytest.mark.parametrize("text", ["pkcs11:token=a?pin-value=1234", "tpm:?pin-value=1234"])
def test_pin_value_is_refused(text: str) -> None:
    """A PIN in a URI is refused with a hint, and not repeated."""
    with pytest.raises(Malformed, match="pin-value") as caught:
        parse_key_uri(text)
    assert caught.value.hint is not None
    assert "pin-source" in caught.value.hint
    assert "1234" not in f"{caught.value!r}{caught.value}{caught.value.hint}"


@given(pkcs11_uris | tpm_uris)
def test_written_uri_reads_back(uri: KeyUri) -> None:
    """Reading what a URI writes gives the URI."""
    assert uri == parse_key_uri(str(uri))


@given(st.text(max_size=60) | st.from_regex(r"(pkcs11|tpm):[a-z;=%?&0-9-]{0,40}", fullmatch=True))
def test_any_text_is_read_or_malformed(text: str) -> None:
    """No text makes the reader fail otherwise, and what is read has one written form."""
    try:
        uri = parse_key_uri(text)
    except Malformed:
        return
    assert str(uri) == str(parse_key_uri(str(uri)))
