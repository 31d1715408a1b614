//! Appending, so that what was acknowledged is on the disk and what failed is not in the way.
//!
//! ```text
//!   header │ records … │ zeros …………… │
//!                      ▲              ▲
//!                      end            room
//! ```

use std::io;

use doors_core::{limits, spa::replay::Record};

use super::record::{self, RECORD, STEP};

/// No file is longer, as it is read into memory: sixteen million knocks.
pub(super) const LONGEST: usize = 512 * 1024 * 1024;

/// All that has to stay fits, twice, since as much is added before a new file is made: of each client its low-water mark
/// and both kinds of requests; and everybody's low-water mark.
const _: () = {
    let records = limits::CLIENTS * (2 * limits::KNOCKS_REMEMBERED + 1) + 1;
    assert!(2 * records * RECORD + STEP < LONGEST);
};

/// The file that a log is in. The tests have one that fails.
pub(super) trait Disk {
    /// Writes everything at this offset.
    fn write_at(&mut self, bytes: &[u8], offset: usize) -> io::Result<()>;
    /// Returns when everything that was written, and the length, is on the disk.
    fn sync(&mut self) -> io::Result<()>;
    /// Makes the file this long.
    fn cut(&mut self, length: usize) -> io::Result<()>;
}

/// The records of one file.
#[derive(Debug)]
pub(super) struct Log<D> {
    disk: D,
    generation: u32,
    /// How many records stand in it.
    slots: usize,
    /// The length of the file.
    room: usize,
    /// After the records may stand something that was never acknowledged.
    bad_tail: bool,
}

impl<D: Disk> Log<D> {
    /// A log in a file that holds this many records, and is `room` bytes long.
    pub(super) fn new(disk: D, generation: u32, slots: usize, room: usize) -> Self {
        Self { disk, generation, slots, room, bad_tail: false }
    }

    /// The number of the file: how often one was made before it.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    #[cfg(test)]
    pub(super) fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    /// The bytes of a new file with these records, and with room for more.
    pub(super) fn whole(generation: u32, records: &[Record]) -> Vec<u8> {
        let mut bytes = record::header(generation).to_vec();
        for (slot, record) in records.iter().enumerate() {
            bytes.extend(record::encode(record, generation, slot));
        }
        bytes.resize(bytes.len().saturating_add(RECORD).next_multiple_of(STEP), 0);
        bytes
    }

    /// Brings to the disk what a process has written that was killed before it could. What is believed has to
    /// stay.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.disk.sync()
    }

    /// Cuts off what stands after the records.
    fn cut_tail(&mut self) -> io::Result<()> {
        let end = record::offset(self.slots);
        self.bad_tail = true;
        self.disk.cut(end)?;
        self.room = end;
        // No room yet: nothing but the length says that nothing is missing.
        self.disk.cut(end.next_multiple_of(STEP))?;
        // Else the tail could come back after a crash, behind newer records.
        self.disk.sync()?;
        self.bad_tail = false;
        Ok(())
    }

    /// Writes records, and returns when they are on the disk. After an error, none of them stays, or only what
    /// the disk would not let go.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if self.bad_tail {
            self.cut_tail()?;
        }
        self.write(records).inspect_err(|_| {
            // If this fails too, the next append begins with it.
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

    /// Makes room up to this offset.
    fn grow(&mut self, end: usize) -> io::Result<()> {
        if end <= self.room {
            return Ok(());
        }
        if end > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let room = end.next_multiple_of(STEP);
        let zeros = vec![0; room.saturating_sub(self.room)];
        self.disk.write_at(&zeros, self.room)?;
        self.disk.sync()?;
        self.room = room;
        Ok(())
    }
}
