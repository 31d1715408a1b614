//! The keys of a table `[[clients]]`, and of a file in `clients_dir`.

use super::{Key, Maybe};
use crate::config::{
    file::FileClient,
    kinds::{CLIENT_KEY, CLIENT_NAME, DATE, NETWORKS, SECONDS, SOME_DOOR_NAMES, YES_OR_NO},
};

/// In the order of the manual.
pub(in crate::config) const CLIENT: &[Key<FileClient>] = &[
    Key {
        name: "name",
        field: &Maybe {
            kind: CLIENT_NAME,
            unset: None,
            example: None,
            slot: |client: &mut FileClient| &mut client.name,
        },
        help: "What the client is called in the log: letters, digits, and . _ - @ between.",
    },
    Key {
        name: "key",
        field: &Maybe {
            kind: CLIENT_KEY,
            unset: None,
            example: None,
            slot: |client: &mut FileClient| &mut client.key,
        },
        help: "Its public key, as in authorized_keys. One key for each device: to lock a device out, take its \
               client away.",
    },
    Key {
        name: "doors",
        field: &Maybe {
            kind: SOME_DOOR_NAMES,
            unset: None,
            example: None,
            slot: |client: &mut FileClient| &mut client.doors,
        },
        help: "The doors that it may open, by their names.",
    },
    Key {
        name: "max_open_for",
        field: &Maybe {
            kind: SECONDS,
            unset: Some("what each door allows"),
            example: None,
            slot: |client: &mut FileClient| &mut client.max_open_for,
        },
        help: "The longest time for which it may have a door open.",
    },
    Key {
        name: "from",
        field: &Maybe {
            kind: NETWORKS,
            unset: Some("everywhere"),
            example: None,
            slot: |client: &mut FileClient| &mut client.from,
        },
        help: "From where it may knock, and which addresses it may let in.",
    },
    Key {
        name: "until",
        field: &Maybe {
            kind: DATE,
            unset: Some("for ever"),
            example: None,
            slot: |client: &mut FileClient| &mut client.until,
        },
        help: "The last day, in UTC, on which its key is worth something; or the moment from which on it is \
               not.",
    },
    Key {
        name: "disabled",
        field: &Maybe {
            kind: YES_OR_NO,
            unset: Some("false"),
            example: None,
            slot: |client: &mut FileClient| &mut client.disabled,
        },
        help: "Whether it may open nothing for the time being. `port-knocking-doors client disable` and `enable` write \
               this into the client's file.",
    },
];
