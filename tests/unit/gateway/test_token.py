import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_server.core.bootplan import check_argument
from billet_server.gateway.token import MAX_TOKEN_CHARS, Claim, mint, read

KEY = b"0123456789abcdef0123456789abcdef"
UID = "3f0c8e1e-7a57-4d2b-9df1-6f3f7c1f2d11"
MAC = "52:54:00:12:34:56"
NONCE = "b7Zk_2-Q9"

uids = st.from_regex(r"[A-Za-z0-9-]{1,64}", fullmatch=True)
macs = st.from_regex(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", fullmatch=True)
nonces = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


@given(uids, macs, nonces)
def test_a_token_reads_back_and_fits_on_the_kernel_line(uid, mac, nonce):
    token = mint(KEY, uid, mac, nonce)
    assert read(KEY, token) == Claim(uid, mac, nonce)
    assert len(token) <= MAX_TOKEN_CHARS
    assert check_argument(f"billet.token={token}")


def test_another_key_does_not_read_it():
    assert read(b"another key of 32 bytes.........", mint(KEY, UID, MAC, NONCE)) is None


@given(st.integers(min_value=0), st.characters(codec="ascii"))
def test_every_changed_character_spoils_it(place, character):
    token = mint(KEY, UID, MAC, NONCE)
    place %= len(token)
    changed = token[:place] + character + token[place + 1 :]
    assert (read(KEY, changed) is not None) == (changed == token)


@given(st.text(max_size=400))
def test_reading_never_raises(text):
    assert read(KEY, text) is None
    assert read(KEY, "b1." + text) is None


@pytest.mark.parametrize(
    "token",
    ["", "b1", "b1..", "b2.QQ.QQ", "b1.QQ.QQ.QQ", "b1." + "A" * 400 + ".A", "b1.é.é"],
)
def test_what_is_no_token(token):
    assert read(KEY, token) is None


def test_a_claim_cannot_be_moved_to_another_host():
    mine, other = mint(KEY, UID, MAC, NONCE), mint(KEY, "other", MAC, NONCE)
    prefix, _claims, proof = mine.split(".")
    assert read(KEY, f"{prefix}.{other.split('.')[1]}.{proof}") is None


def test_padding_and_the_other_alphabet_are_no_second_spelling():
    token = mint(KEY, UID, MAC, NONCE)
    assert read(KEY, token + "=") is None
    prefix, claims, proof = token.split(".")
    assert read(KEY, f"{prefix}.{claims}=.{proof}") is None


@pytest.mark.parametrize(
    ("uid", "mac", "nonce"),
    [
        ("", MAC, NONCE),
        ("a|b", MAC, NONCE),
        ("a" * 65, MAC, NONCE),
        (UID, MAC.upper().replace("52", "AB"), NONCE),
        (UID, "52-54-00-12-34-56", NONCE),
        (UID, MAC, ""),
        (UID, MAC, "n n"),
        (UID, MAC + "\n", NONCE),
    ],
)
def test_minting_refuses_what_it_could_not_read(uid, mac, nonce):
    with pytest.raises(ValueError):
        mint(KEY, uid, mac, nonce)


def test_minting_refuses_a_short_key():
    with pytest.raises(ValueError, match="at least 16"):
        mint(b"short", UID, MAC, NONCE)
