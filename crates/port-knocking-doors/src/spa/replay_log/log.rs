//! Appends records: an acknowledged record is on disk, and a failed one leaves nothing behind.
//!
//! ```text
//!   header │ records … │ zeros …………… │
//!                      ▲              ▲
//!                      end            room
//! ```

use std::io;

use doors_core::{limits, spa::replay::Record};

use super::record::{self, GROWTH, RECORD};

/// The maximum length of a file, which is read into memory: sixteen million records.
pub(super) const MAX_LENGTH: usize = 512 * 1024 * 1024;

/// Two times the records that must be kept fit, since as many are added before a new file is written: for each client
/// its low-water mark and both kinds of requests, and the common low-water mark.
const _: () = {
    let records = limits::CLIENTS * (2 * limits::KNOCKS_REMEMBERED + 1) + 1;
    assert!(2 * records * RECORD + GROWTH < MAX_LENGTH);
};

/// The file of a log. The tests use one that fails.
pub(super) trait Disk {
    /// Writes all bytes at this offset.
    fn write_at(&mut self, bytes: &[u8], offset: usize) -> io::Result<()>;
    /// Returns when all written bytes and the length are on disk.
    fn sync(&mut self) -> io::Result<()>;
    /// Sets the length of the file.
    fn cut(&mut self, length: usize) -> io::Result<()>;
}

/// The records of one file.
#[derive(Debug)]
pub(super) struct Log<D> {
    disk: D,
    generation: u32,
    /// The number of records in the file.
    slots: usize,
    /// The length of the file.
    room: usize,
    /// Whether bytes that were never acknowledged may follow the records.
    bad_tail: bool,
}

impl<D: Disk> Log<D> {
    /// A log in a file that holds `slots` records and is `room` bytes long.
    pub(super) fn new(disk: D, generation: u32, slots: usize, room: usize) -> Self {
        Self { disk, generation, slots, room, bad_tail: false }
    }

    /// The generation of the file, which counts the files before it.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    #[cfg(test)]
    pub(super) fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    /// The bytes of a new file with these records and room for more.
    pub(super) fn whole(generation: u32, records: &[Record]) -> Vec<u8> {
        let mut bytes = record::header(generation).to_vec();
        for (slot, record) in records.iter().enumerate() {
            bytes.extend(record::encode(record, generation, slot));
        }
        bytes.resize(bytes.len().saturating_add(RECORD).next_multiple_of(GROWTH), 0);
        bytes
    }

    /// Syncs what a process wrote before it was killed: what was loaded has to stay.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.disk.sync()
    }

    /// Truncates the file after the records.
    fn cut_tail(&mut self) -> io::Result<()> {
        let end = record::offset(self.slots);
        self.bad_tail = true;
        self.disk.cut(end)?;
        self.room = end;
        // Only the length is restored: it marks the file as complete. The zeros are written later.
        self.disk.cut(end.next_multiple_of(GROWTH))?;
        // Otherwise a crash could bring back the tail behind newer records.
        self.disk.sync()?;
        self.bad_tail = false;
        Ok(())
    }

    /// Writes records, and returns when they are on disk. After an error none of them stays, unless truncating fails,
    /// too.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if self.bad_tail {
            self.cut_tail()?;
        }
        self.write(records).inspect_err(|_| {
            // If this fails, too, the next append starts with it.
            let _ = self.cut_tail();
        })
    }

    fn write(&mut self, records: &[Record]) -> io::Result<()> {
        let slots = self.slots.saturating_add(records.len());
        self.grow(record::offset(slots))?;
        let bytes: Vec<u8> = (self.slots..)
            .zip(records)
            .flat_map(|(slot, record)| record::encode(record, self.generation, slot))
            .collect();
        self.disk.write_at(&bytes, record::offset(self.slots))?;
        self.disk.sync()?;
        self.slots = slots;
        Ok(())
    }

    /// Extends the file to at least this offset.
    fn grow(&mut self, end: usize) -> io::Result<()> {
        if end <= self.room {
            return Ok(());
        }
        if end > MAX_LENGTH {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let room = end.next_multiple_of(GROWTH);
        let zeros = vec![0; room.saturating_sub(self.room)];
        self.disk.write_at(&zeros, self.room)?;
        self.disk.sync()?;
        self.room = room;
        Ok(())
    }
}
