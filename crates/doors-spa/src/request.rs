//! Requests: what a client asks of the gateway.
//!
//! ```text
//!   0   1  operation: 1 open, 2 close, 3 ask
//!   1   1  flags, zero
//!   2   2  reserved, zero
//!   4   4  open: wanted seconds, 0 for the door's default; ask: the number of doors to skip
//!   8   8  time, milliseconds since 1970
//!  16   8  nonce
//!  24   8  client ID
//!  32   8  door ID, zero for "ask"
//!  40  16  address to let in, zero for the source of the packet
//!  56   8  challenge from an earlier receipt, or zero
//! ```
//!
//! All numbers are big-endian. A receiver rejects a request with reserved bits set or with an unknown
//! operation, so that a later version can give them a meaning.

use core::net::IpAddr;

use crate::{
    address,
    identity::{ClientId, DoorId},
};

/// The operation that a client requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Open a door, or extend it.
    Open {
        /// The door.
        door: DoorId,
        /// For this many seconds; 0 for the door's default.
        wanted: u32,
    },
    /// Close a door.
    Close {
        /// The door.
        door: DoorId,
    },
    /// List the doors that this client may open.
    Ask {
        /// The number of doors to skip: those listed on earlier pages.
        skip: u32,
    },
}

/// A client's request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// The operation.
    pub operation: Operation,
    /// The client's clock, in milliseconds since 1970.
    pub time: u64,
    /// Random, so that no two requests are equal.
    pub nonce: [u8; 8],
    /// The client.
    pub client: ClientId,
    /// The address to let in; `None` for the source of the packet.
    pub address: Option<IpAddr>,
    /// The challenge from an earlier receipt; zeros for none.
    pub challenge: [u8; 8],
}

const OPEN: u8 = 1;
const CLOSE: u8 = 2;
const ASK: u8 = 3;
const NO_DOOR: DoorId = DoorId([0; 8]);

impl Request {
    /// The length in bytes.
    pub const LEN: usize = 64;

    /// Encodes the request.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let (operation, door, number) = match self.operation {
            Operation::Open { door, wanted } => (OPEN, door, wanted),
            Operation::Close { door } => (CLOSE, door, 0),
            Operation::Ask { skip } => (ASK, NO_DOOR, skip),
        };
        let fields: [&[u8]; 9] = [
            &[operation, 0, 0, 0],
            &number.to_be_bytes(),
            &self.time.to_be_bytes(),
            &self.nonce,
            &self.client.0,
            &door.0,
            &address::encode(self.address),
            &self.challenge,
            &[],
        ];
        let mut bytes = [0; Self::LEN];
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    /// Decodes a request; `None` if it contains anything that is not known here.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (time, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (client, rest) = rest.split_first_chunk()?;
        let (door, rest) = rest.split_first_chunk()?;
        let (address, challenge) = rest.split_first_chunk()?;
        let (number, door) = (u32::from_be_bytes(*number), DoorId(*door));
        let operation = match (*head, number, door) {
            ([OPEN, 0, 0, 0], wanted, door) => Operation::Open { door, wanted },
            ([CLOSE, 0, 0, 0], 0, door) => Operation::Close { door },
            ([ASK, 0, 0, 0], skip, NO_DOOR) => Operation::Ask { skip },
            _ => return None,
        };
        Some(Self {
            operation,
            time: u64::from_be_bytes(*time),
            nonce: *nonce,
            client: ClientId(*client),
            address: address::decode(*address),
            challenge: *challenge.first_chunk()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_request_that_decodes_encodes_to_the_same_bytes(mut bytes: [u8; 64], operation in 0_u8..5) {
            [bytes[0], bytes[1], bytes[2], bytes[3]] = [operation, 0, 0, 0];
            if let Some(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode(), bytes);
            }
        }

        #[test]
        fn a_request_with_reserved_bits_is_rejected(mut bytes: [u8; 64], at in 1_usize..4, bit in 0_u8..8) {
            [bytes[0], bytes[1], bytes[2], bytes[3]] = [OPEN, 0, 0, 0];
            prop_assert!(Request::decode(&bytes).is_some());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Request::decode(&bytes), None);
        }
    }
}
