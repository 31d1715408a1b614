//! Netlink messages as bytes.
//!
//! ```text
//!   0  4  length, with this header      ┐
//!   4  2  kind                          │
//!   6  2  flags                         │ struct nlmsghdr, in the byte order of the machine
//!   8  4  sequence number               │
//!  12  4  port of the sender            ┘
//!  16  …  a fixed header of the protocol, then attributes, each padded to four bytes:
//!            0  2  length, with these four bytes   ┐ struct nlattr
//!            2  2  kind                            ┘
//!            4  …  value, or more attributes
//! ```
//!
//! Source: netlink(7), `linux/netlink.h`.

use libc::c_int;

/// A request to the kernel.
pub const NLM_F_REQUEST: u16 = short(libc::NLM_F_REQUEST);
/// Acknowledge success, too.
pub const NLM_F_ACK: u16 = short(libc::NLM_F_ACK);
/// The data changed during the dump.
pub const NLM_F_DUMP_INTR: u16 = short(libc::NLM_F_DUMP_INTR);
/// Return all objects.
pub const NLM_F_DUMP: u16 = short(libc::NLM_F_DUMP);
/// Fail if it exists.
pub const NLM_F_EXCL: u16 = short(libc::NLM_F_EXCL);
/// Create it if it does not exist.
pub const NLM_F_CREATE: u16 = short(libc::NLM_F_CREATE);
/// Append it to the list.
pub const NLM_F_APPEND: u16 = short(libc::NLM_F_APPEND);
/// The answer has attributes.
const NLM_F_ACK_TLVS: u16 = short(libc::NLM_F_ACK_TLVS);
/// The answer contains only the header of the request.
const NLM_F_CAPPED: u16 = short(libc::NLM_F_CAPPED);

/// An error or, with error 0, an acknowledgement.
pub const NLMSG_ERROR: u16 = short(libc::NLMSG_ERROR);
/// The end of a dump.
pub const NLMSG_DONE: u16 = short(libc::NLMSG_DONE);
const NLMSG_HDRLEN: usize = size_of::<libc::nlmsghdr>();
/// The attribute of an error that holds the kernel's text.
const NLMSGERR_ATTR_MSG: u16 = 1;

const NLA_F_NESTED: u16 = short(libc::NLA_F_NESTED);
/// The type of an attribute without its flags.
const NLA_TYPE_MASK: u16 = short(libc::NLA_TYPE_MASK);

/// One of the constants of `libc`, in the 16 bits that a message has for it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the headers define them for 16 bits"
)]
const fn short(number: c_int) -> u16 {
    number as u16
}

/// Writes one or more messages.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Where the latest message begins.
    latest: usize,
}

impl Writer {
    /// Adds a message; `body` writes the fixed header and the attributes.
    pub fn message(&mut self, kind: u16, flags: u16, sequence: u32, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.latest = start;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        body(self);
        let length = u32::try_from(self.bytes.len().saturating_sub(start)).unwrap_or(u32::MAX);
        self.overwrite(start, &length.to_ne_bytes());
    }

    /// Writes bytes as they are: the fixed header of a protocol.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes an attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |writer| writer.raw(value));
    }

    /// Writes a number in network byte order, as nftables wants it.
    pub fn put_u32_be(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Writes a string with its terminating zero.
    pub fn put_text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, |writer| {
            writer.raw(text.as_bytes());
            writer.raw(&[0]);
        });
    }

    /// Writes an attribute that holds attributes.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.attribute(kind | NLA_F_NESTED, body);
    }

    /// Requests an acknowledgement of the latest message.
    pub fn want_answer(&mut self) {
        let at = self.latest.saturating_add(6);
        let flags = self.bytes.get(at..).and_then(|rest| rest.first_chunk()).copied();
        if let Some(flags) = flags.map(u16::from_ne_bytes) {
            self.overwrite(at, &(flags | NLM_F_ACK).to_ne_bytes());
        }
    }

    /// The messages.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn attribute(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        body(self);
        let length = u16::try_from(self.bytes.len().saturating_sub(start));
        debug_assert!(length.is_ok(), "an attribute of over 64 KiB");
        self.overwrite(start, &length.unwrap_or(0).to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn overwrite(&mut self, at: usize, with: &[u8]) {
        let place = self.bytes.get_mut(at..).and_then(|rest| rest.get_mut(..with.len()));
        if let Some(place) = place {
            place.copy_from_slice(with);
        }
    }
}

/// A received message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// The port of the sender; of a notification, the port of the process that made the change.
    pub port: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes behind a fixed header of `header` bytes.
    pub fn attributes(&self, header: usize) -> Attributes<'a> {
        Attributes(self.body.get(header..).unwrap_or_default())
    }

    /// Reads an answer: the error number (0 for none) and the kernel's text.
    pub fn error(&self) -> (i32, Option<String>) {
        let number = self.body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes).saturating_neg());
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return (number, None);
        }
        let request = self.body.get(4..).unwrap_or_default();
        let length = match self.flags & NLM_F_CAPPED {
            0 => request.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes)),
            _ => 16,
        };
        let skip = usize::try_from(length).unwrap_or(usize::MAX).next_multiple_of(4);
        let text = Attributes(request.get(skip..).unwrap_or_default()).find(NLMSGERR_ATTR_MSG).map(text);
        (number, text)
    }
}

/// Splits a received datagram into messages.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<NLMSG_HDRLEN>()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, _, _, _, _, p0, p1, p2, p3] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let message = Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            body: bytes.get(NLMSG_HDRLEN..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Attributes, read one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of a kind.
    pub fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(other, value)| (other == kind).then_some(value))
    }

    /// The attributes within the first attribute of a kind; none if it is not there.
    pub fn nested(self, kind: u16) -> Self {
        Self(self.find(kind).unwrap_or_default())
    }

    /// A string.
    pub fn text(self, kind: u16) -> Option<String> {
        self.find(kind).map(text)
    }

    /// A number in network byte order.
    pub fn u32_be(self, kind: u16) -> Option<u32> {
        self.find(kind)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// A number in network byte order.
    pub fn u64_be(self, kind: u16) -> Option<u64> {
        self.find(kind)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1] = *self.0.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK, value))
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_messages_are_read_back() {
        let mut writer = Writer::default();
        writer.message(77, 0, 5, |message| {
            message.raw(&[1, 2, 3, 4]);
            message.put_text(1, "gate");
            message.nest(2, |nest| nest.put_u32_be(3, 600));
        });
        writer.want_answer();
        writer.message(78, 0, 6, |_| {});
        assert_eq!(writer.bytes().len() % 4, 0);

        let read: Vec<Message<'_>> = messages(writer.bytes()).collect();
        assert_eq!(read.iter().map(|message| message.kind).collect::<Vec<_>>(), [77, 78]);
        assert_eq!(
            read.iter().map(|message| message.flags).collect::<Vec<_>>(),
            [NLM_F_REQUEST | NLM_F_ACK, NLM_F_REQUEST]
        );
        let attributes = read[0].attributes(4);
        assert_eq!(attributes.text(1).as_deref(), Some("gate"));
        assert_eq!(attributes.nested(2).u32_be(3), Some(600));
        assert_eq!(attributes.find(4), None);
    }

    #[test]
    fn a_truncated_message_ends_the_iteration() {
        let mut writer = Writer::default();
        writer.message(77, 0, 5, |message| message.put(1, &[9; 10]));
        for length in 0..writer.bytes().len() {
            assert_eq!(messages(&writer.bytes()[..length]).count(), 0, "{length}");
        }
        for length in 0..14 {
            let attribute = &writer.bytes()[16..16 + length];
            assert_eq!(Attributes(attribute).count(), usize::from(length == 14), "{length}");
        }
        assert_eq!(Attributes(&[0; 8]).count(), 0, "a length of zero does not loop");
    }
}
