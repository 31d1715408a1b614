#!/usr/bin/env python3
"""Speaks docs/spa.md: one knock with a key, and its receipt.

    spa.py --numbers                             the whole knock at the end of docs/spa.md
    spa.py HOST CARD-FILE KEY-FILE DOOR [PORT]   knocks, and says what the server answers

It shows the protocol and is no client to rely on: it has one address, no challenge after a wrong clock, and repeats nothing.
doorknock does all of that. Needs Python's `cryptography`, in Debian python3-cryptography.
"""

import base64
import hashlib
import hmac
import os
import socket
import struct
import sys
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

PROTOCOL = b"port-knocking-doors spa/1"
ANSWERS = ["", "granted", "closed", "told", "not allowed, or no such door", "stale: the clock differs", "too many", "address",
           "cannot be recorded", "the firewall has not done it"]


def raw(public):
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def blake2s(data, key, size):
    return hashlib.blake2s(data, key=key, digest_size=size).digest()


def string(data):
    """An SSH string: its length, and itself."""
    return struct.pack(">I", len(data)) + data


# HPKE (RFC 9180): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, mode_psk.

KEM = b"KEM" + struct.pack(">H", 0x0020)
HPKE = b"HPKE" + struct.pack(">HHH", 0x0020, 0x0001, 0x0003)


def extract(suite, salt, label, data):
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + data, "sha256")


def expand(suite, key, label, info, size):
    block = struct.pack(">H", size) + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, block + b"\x01", "sha256")[:size]


def ephemeral(ikm):
    """DeriveKeyPair: from random bytes to the key that is used once."""
    return X25519PrivateKey.from_private_bytes(expand(KEM, extract(KEM, b"", b"dkp_prk", ikm), b"sk", b"", 32))


class Context:
    """The sender's side."""

    def __init__(self, key, gateway, site):
        self.enc = raw(key.public_key())
        shared = key.exchange(X25519PublicKey.from_public_bytes(gateway))
        shared = expand(KEM, extract(KEM, b"", b"eae_prk", shared), b"shared_secret", self.enc + gateway, 32)
        psk_id = extract(HPKE, b"", b"psk_id_hash", PROTOCOL + b" site")
        context = b"\x01" + psk_id + extract(HPKE, b"", b"info_hash", PROTOCOL + gateway)
        secret = extract(HPKE, shared, b"secret", site)
        self.key = expand(HPKE, secret, b"key", context, 32)
        self.nonce = expand(HPKE, secret, b"base_nonce", context, 12)
        self.exporter = expand(HPKE, secret, b"exp", context, 32)

    def seal(self, text):
        return ChaCha20Poly1305(self.key).encrypt(self.nonce, text, b"")

    def export(self, what):
        return expand(HPKE, self.exporter, b"sec", what, 32)


# docs/spa.md

def read_card(text):
    """The gateway's public key, and the site secret."""
    head, body = text.strip().split("-", 1)
    body = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    if head != "doors1" or len(body) != 68 or hashlib.sha256(b"doors1-" + body[:64]).digest()[:4] != body[64:]:
        raise ValueError("not a valid card")
    return body[:32], body[32:64]


def write_card(gateway, site):
    check = hashlib.sha256(b"doors1-" + gateway + site).digest()[:4]
    return b"doors1-" + base64.urlsafe_b64encode(gateway + site + check).rstrip(b"=")


def fingerprint(client):
    return hashlib.sha256(string(b"ssh-ed25519") + string(client)).digest()


def open_request(client, door, wanted, milliseconds, nonce, address):
    request = struct.pack(">BBHIQ8s", 1, 0, 0, wanted, milliseconds, nonce)
    request += fingerprint(client)[:8] + hashlib.sha256(door.encode()).digest()[:8]
    return request + address + bytes(8)


def to_sign(gateway, enc, request):
    digest = hashlib.sha512(PROTOCOL + gateway + enc + request).digest()
    return b"SSHSIG" + string(b"spa@port-knocking-doors") + string(b"") + string(b"sha512") + string(digest)


def knock(context, site, client, request, signature):
    hint_key = blake2s(PROTOCOL + b" hint", site, 32)
    mask = blake2s(context.enc, hint_key, 2)
    hint = bytes(a ^ b for a, b in zip(fingerprint(client)[:2], mask))
    body = context.enc + context.seal(request + signature)
    tag_key = blake2s(PROTOCOL + b" tag" + fingerprint(client), site, 32)
    return hint + blake2s(hint + body, tag_key, 14) + body


def receipt_cipher(context, salt):
    return ChaCha20Poly1305(blake2s(salt, context.export(PROTOCOL + b" receipt"), 32))


def open_receipt(context, datagram):
    """The plain receipt of 160 bytes."""
    return receipt_cipher(context, datagram[:16]).decrypt(bytes(12), datagram[16:], b"")


def mapped(address):
    return bytes(10) + b"\xff\xff" + socket.inet_aton(address)


def numbers():
    """What docs/spa.md has at its end, made from its inputs."""
    private = bytes(range(0x10, 0x30))
    gateway = raw(X25519PrivateKey.from_private_bytes(private).public_key())
    site, seed = bytes(range(0x50, 0x70)), bytes(range(0x90, 0xb0))
    signer = Ed25519PrivateKey.from_private_bytes(seed)
    client = raw(signer.public_key())
    nonce, ikm, salt = bytes(range(1, 9)), bytes(range(0xd0, 0xf0)), bytes(range(0xf0, 0x100))
    request = open_request(client, "ssh", 600, 1800000000123, nonce, mapped("203.0.113.7"))
    context = Context(ephemeral(ikm), gateway, site)
    signed = to_sign(gateway, context.enc, request)
    signature = signer.sign(signed)
    sent = knock(context, site, client, request, signature)
    told = bytes([3]) + b"ssh" + struct.pack(">I", 3600)
    receipt = struct.pack(">BBHIQ16sHH8s", 1, 1, 1, 600, 1800000000456, mapped("203.0.113.7"), 40000, 0, bytes(8))
    receipt += told.ljust(116, b"\0")
    sealed = salt + receipt_cipher(context, salt).encrypt(bytes(12), receipt, b"")
    assert open_receipt(context, sealed) == receipt
    return {
        "gateway private": private, "gateway public": gateway, "site secret": site, "card": write_card(gateway, site),
        "client seed": seed, "client public": client, "fingerprint": fingerprint(client), "client": fingerprint(client)[:8],
        "nonce": nonce, "request": request, "ikmE": ikm, "to sign": signed, "signature": signature, "knock": sent,
        "salt": salt, "receipt": sealed,
    }


def main(host, card_file, key_file, door, port="62201"):
    with open(card_file, encoding="ascii") as file:
        gateway, site = read_card(file.read())
    with open(key_file, "rb") as file:
        signer = load_ssh_private_key(file.read(), None)
    client = raw(signer.public_key())
    context = Context(ephemeral(os.urandom(32)), gateway, site)
    # No address: the door is for where this datagram comes from.
    request = open_request(client, door, 0, time.time_ns() // 1000000, os.urandom(8), bytes(16))
    sent = knock(context, site, client, request, signer.sign(to_sign(gateway, context.enc, request)))
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as udp:
        udp.settimeout(3)
        udp.sendto(sent, address)
        receipt = open_receipt(context, udp.recv(2048))
    answer, seconds = receipt[0], struct.unpack(">I", receipt[4:8])[0]
    print(f"{ANSWERS[answer]}, {seconds} s" if answer == 1 else ANSWERS[answer])
    return 0 if answer == 1 else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["--numbers"]:
        for name, value in numbers().items():
            print(f"{name} = {value.hex()}")
    elif len(sys.argv) in (5, 6):
        sys.exit(main(*sys.argv[1:]))
    else:
        sys.exit(__doc__)
