//! Asks for all doors of a server, page by page, without I/O.
//!
//! Each page costs a signature, which an agent may have its user confirm. So a gateway cannot have more pages
//! than there can be doors, nor take longer than a user waits.

use std::{collections::BTreeSet, time::Duration};

use doors_spa::{door, receipt, receipt::Receipt};

use crate::spa::credible::Incredible;

/// All pages of the largest configuration, at the other side of the earth, take a quarter of it.
const IN_ALL: Duration = Duration::from_secs(120);

/// As many pages as the most doors with the longest names fill.
const MOST_PAGES: u16 = door::MAX_DOORS.div_ceil(receipt::DOORS_ON_A_PAGE);

/// What has been told so far.
#[derive(Debug, Default)]
pub struct Pages {
    names: BTreeSet<String>,
    taken: u16,
}

impl Pages {
    /// Takes a page that came so long after the first was asked for. Gives how many doors to leave out of the
    /// next one; `None` if this was the last.
    ///
    /// # Errors
    /// [`Incredible`] if there cannot be such a page.
    pub fn take(&mut self, page: &Receipt, passed: Duration) -> Result<Option<u32>, Incredible> {
        let in_all = u32::from(page.doors_in_all);
        if in_all > u32::from(door::MAX_DOORS) {
            return Err(Incredible::Doors(in_all));
        }
        for door in &page.doors {
            if !self.names.insert(door.name.clone()) {
                return Err(Incredible::Again);
            }
        }
        self.taken = self.taken.saturating_add(1);
        let told = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        match told >= in_all {
            true if told > u32::from(door::MAX_DOORS) => Err(Incredible::Doors(told)),
            true => Ok(None),
            false if page.doors.is_empty() => Err(Incredible::NoProgress),
            false if self.taken >= MOST_PAGES || passed >= IN_ALL => Err(Incredible::Endless),
            false => Ok(Some(told)),
        }
    }
}

#[cfg(test)]
mod tests {
    use doors_spa::receipt::{Answer, ToldDoor};

    use super::*;

    fn page(in_all: u16, names: &[&str]) -> Receipt {
        let door = |name: &&str| ToldDoor { name: (*name).to_owned(), longest: 30 };
        Receipt {
            answer: Answer::Told,
            seconds: 0,
            time: 0,
            seen: "203.0.113.7:4711".parse().unwrap(),
            challenge: [0; 8],
            doors_in_all: in_all,
            doors: names.iter().map(door).collect(),
        }
    }

    #[test]
    fn the_pages_end_with_the_last_door() {
        let mut pages = Pages::default();
        assert_eq!(pages.take(&page(3, &["a", "b"]), Duration::ZERO), Ok(Some(2)));
        assert_eq!(pages.take(&page(3, &["c"]), Duration::ZERO), Ok(None));
        assert_eq!(Pages::default().take(&page(0, &[]), Duration::ZERO), Ok(None));
    }

    #[test]
    fn the_largest_configuration_with_the_longest_names_can_be_told() {
        let names: Vec<String> = (0..door::MAX_DOORS).map(|number| format!("a{number:031}")).collect();
        let mut pages = Pages::default();
        let mut next = Some(0);
        while let Some(skip) = next {
            let doors = names[usize::try_from(skip).unwrap()..].iter();
            let doors = doors.map(|name| ToldDoor { name: name.clone(), longest: 30 });
            next =
                pages.take(&page(door::MAX_DOORS, &[]).with_doors(doors), Duration::from_secs(30)).unwrap();
        }
        assert_eq!(pages.names.len(), usize::from(door::MAX_DOORS));
    }

    #[test]
    fn a_page_without_a_new_door_is_an_error() {
        let mut pages = Pages::default();
        assert_eq!(pages.take(&page(9, &["a", "b"]), Duration::ZERO), Ok(Some(2)));
        assert_eq!(pages.take(&page(9, &["c", "a"]), Duration::ZERO), Err(Incredible::Again));
        assert_eq!(Pages::default().take(&page(9, &["a", "a"]), Duration::ZERO), Err(Incredible::Again));
        assert_eq!(Pages::default().take(&page(9, &[]), Duration::ZERO), Err(Incredible::NoProgress));
    }

    #[test]
    fn a_gateway_cannot_keep_a_client_asking() {
        assert_eq!(Pages::default().take(&page(1025, &["a"]), Duration::ZERO), Err(Incredible::Doors(1025)));
        let mut pages = Pages::default();
        let answers = (0..1000)
            .map(|number| pages.take(&page(door::MAX_DOORS, &[&format!("a{number}")]), Duration::ZERO));
        assert_eq!(answers.take_while(Result::is_ok).count(), 341);
        let late = Duration::from_secs(120);
        assert_eq!(Pages::default().take(&page(2, &["a"]), late), Err(Incredible::Endless));
        assert_eq!(Pages::default().take(&page(1, &["a"]), late), Ok(None));
    }
}
