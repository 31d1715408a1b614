//! The keys of a table `[[doors]]`.

use super::{Key, Maybe, Or};
use crate::config::{
    file::FileDoor,
    kinds::{DOOR_NAME, GRANT, PORTS, SECONDS, SEQUENCE, YES_OR_NO},
};

/// In the order of the manual.
pub(in crate::config) const DOOR: &[Key<FileDoor>] = &[
    Key {
        name: "name",
        field: &Maybe {
            kind: DOOR_NAME,
            unset: None,
            example: None,
            slot: |door: &mut FileDoor| &mut door.name,
        },
        help: "What the door is called in the log and in the firewall: a letter, then letters, digits, _ \
               and -.",
    },
    Key {
        name: "ports",
        field: &Maybe {
            kind: PORTS,
            unset: None,
            example: None,
            slot: |door: &mut FileDoor| &mut door.ports,
        },
        help: "The ports that the door opens.",
    },
    Key {
        name: "sequence",
        field: &Maybe {
            kind: SEQUENCE,
            unset: Some("none"),
            example: None,
            slot: |door: &mut FileDoor| &mut door.sequence,
        },
        help: "The UDP ports to send \"knock\\n\" to, in this order. No door's sequence may begin with \
               the whole of another's. A door without a sequence opens to clients with a key only.",
    },
    Key {
        name: "open_for",
        field: &Maybe {
            kind: SECONDS,
            unset: Some("max_opened_door_duration"),
            example: None,
            slot: |door: &mut FileDoor| &mut door.open_for,
        },
        help: "How long this door stays open.",
    },
    Key {
        name: "max_open_for",
        field: &Maybe {
            kind: SECONDS,
            unset: Some("3600"),
            example: None,
            slot: |door: &mut FileDoor| &mut door.max_open_for,
        },
        help: "For how long a client with a key may have this door open, if it asks for more than open_for. \
               Never shorter than open_for.",
    },
    Key {
        name: "grant",
        field: &Or { kind: GRANT, default: || false, slot: |door: &mut FileDoor| &mut door.once },
        help: "nftables only: \"address\" lets the client's address connect until the time is over; \"once\" lets \
               in the first new connection, and no other. For clients whose address is shared by many.",
    },
    Key {
        name: "require_address",
        field: &Or {
            kind: YES_OR_NO,
            default: || false,
            slot: |door: &mut FileDoor| &mut door.require_address,
        },
        help: "Whether a client with a key has to name the address that is let in, under its signature. Then \
               an attacker on the way cannot hold its knock back and send it from elsewhere. Clients behind an \
               address translator have to be told their outer address with --address.",
    },
];
