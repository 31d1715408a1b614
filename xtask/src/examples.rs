//! Whether the example in Python makes the numbers of the specification.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use crate::programs::Failure;

/// Debian's, which finds Debian's packages.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

const EXAMPLE: &str = "examples/spa.py";
const SPECIFICATION: &str = "docs/spa.md";

pub(crate) fn run() -> Result<(), Failure> {
    let output = Command::new(PYTHON).args([EXAMPLE, "--numbers"]).output();
    let output = output.map_err(|error| format!("cannot run {PYTHON}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{EXAMPLE}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let made = values(std::str::from_utf8(&output.stdout)?);
    let specification = fs::read_to_string(SPECIFICATION)?;
    let block = specification.split("```vector\n").nth(1).and_then(|rest| rest.split("```").next());
    let told = values(block.ok_or("docs/spa.md has no numbers")?);
    let differ = |name: &&String| made.get(*name) != told.get(*name);
    let wrong: BTreeSet<&str> = made.keys().chain(told.keys()).filter(differ).map(String::as_str).collect();
    match wrong.is_empty() && !told.is_empty() {
        true => Ok(()),
        false => {
            Err(format!("{EXAMPLE} and {SPECIFICATION} differ in: {}", Vec::from_iter(wrong).join(", "))
                .into())
        }
    }
}

/// The lines `name = hexadecimal digits`, of which long ones go on in the next line.
fn values(text: &str) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        let digits = match line.split_once(" = ") {
            Some((next, digits)) => {
                next.trim().clone_into(&mut name);
                digits
            }
            None => line,
        };
        values.entry(name.clone()).or_default().push_str(digits.trim());
    }
    values
}

#[test]
fn a_long_value_goes_on_in_the_next_line() {
    let read = values("a = 01\n    02\nb b  = 03\n");
    assert_eq!(
        read,
        [("a", "0102"), ("b b", "03")].map(|(name, digits)| (name.to_owned(), digits.to_owned())).into()
    );
}
